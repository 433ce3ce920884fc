// The injector's settings: one YAML or JSON file, every field checked, unknown ones refused, frozen.

import { createHash } from 'node:crypto';
import { isMap, isScalar, LineCounter, parseDocument, visit } from 'yaml';
import { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { logLevels } from '../observe/log.ts';
import { describeIssue } from '../yaml/schema-problems.ts';
import { parseQuantity } from './quantity.ts';

export const sidecarKinds = ['native', 'classic'] as const;
/** Who makes a pod's keys: its node's agent, or the same code in its sidecar's own container, which needs nothing of the node. */
export const identities = ['agent', 'in-pod'] as const;
export const MAX_WORKERS = 64;

/** Registry and port, path, tag, digest; above all nothing that is white space. */
const IMAGE = /^(?=.{1,512}$)[A-Za-z0-9][A-Za-z0-9._\-/:]*(@[a-z0-9]+:[a-f0-9]{32,128})?$/;

const quantity = z.string().refine((text) => parseQuantity(text) !== undefined, 'give a Kubernetes quantity, such as 100m or 128Mi');
const amounts = z.strictObject({ cpu: quantity.optional(), memory: quantity.optional() });
const address = z.string().regex(/^(\[[0-9a-f:.]+\]|[a-z0-9][a-z0-9.-]*):\d{1,5}$/, 'give host:port');
const dnsLabel = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'give a name in lower case');

const schema = z
  .strictObject({
    image: z.string().regex(IMAGE, 'give the reference of an image'),
    /** For the annotation proxyImage, beside the repository of `image`: repositories, or single images. */
    allowedProxyImages: z.array(z.string().regex(IMAGE, 'give a repository or the reference of an image')).max(100).default([]),
    imagePullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).default('IfNotPresent'),
    /** On the node: where its agent's socket is. */
    agentSocketDirectory: z
      .string()
      .regex(/^(\/(?!\.{1,2}(\/|$))[^/\s]+)+$/, 'give an absolute path')
      .default('/run/handfast'),
    sidecar: z.enum(sidecarKinds).default('native'),
    identity: z.enum(identities).default('agent'),
    /** What sidecars without an agent need to know; without it pods cannot ask for that. */
    inPod: z
      .strictObject({
        ca: address,
        control: z.array(address).min(1).max(16),
        trustDomain: z
          .string()
          .regex(/^[a-z0-9._-]{1,255}$/, 'give a trust domain')
          .default('cluster.local'),
        /** The mesh's roots, as PEM: they are put into the pods. */
        rootsFile: z.string().min(1),
      })
      .optional(),
    tokenAudience: z.string().min(1).default('handfast-ca'),
    // Kubernetes refuses tokens of less than ten minutes.
    tokenExpirationSeconds: z.int().min(600).max(86_400).default(3600),
    /** Given, it replaces the default as a whole. */
    resources: z
      .strictObject({ requests: amounts.optional(), limits: amounts.optional() })
      .default({ requests: { cpu: '50m', memory: '96Mi' }, limits: { cpu: '2000m', memory: '512Mi' } }),
    holdApplicationUntilProxyStarts: z.boolean().default(true),
    rewriteAppHTTPProbers: z.boolean().default(true),
    logLevel: z.enum(logLevels).default('info'),
    workers: z.int().min(1).max(MAX_WORKERS).default(1),
    systemNamespace: dnsLabel.default('handfast-system'),
    injectByDefault: z.boolean().default(false),
  })
  .refine(({ identity, inPod }) => identity === 'agent' || inPod !== undefined, {
    path: ['identity'],
    message: 'in-pod needs inPod: ca, control and rootsFile',
  });

export type InjectorConfig = Readonly<z.infer<typeof schema>>;
export type Resources = InjectorConfig['resources'];

/** `image` stands in for the file's. Throws CONFIG_INVALID whose message has one line a problem: `file:line: what is wrong; what is accepted`. */
export function parseInjectorConfig(of: { text: string; name: string; image?: string | undefined }): InjectorConfig {
  const lines = new LineCounter();
  const document = parseDocument(of.text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, version: '1.2', stringKeys: true });
  const place = (offset: number) => `${of.name}:${lines.linePos(offset).line}`;
  const refuse = (problems: readonly string[]): never => {
    throw new HandfastError('CONFIG_INVALID', problems.join('\n'));
  };
  const [error] = document.errors;
  if (error !== undefined) refuse([`${place(error.pos[0])}: not YAML: ${error.message.split('\n')[0]}`]);
  if (!isMap(document.contents)) refuse([`${of.name}:1: no settings in it; at least "image" is needed`]);
  visit(document, {
    Alias: (_, alias) => refuse([`${place(alias.range?.[0] ?? 0)}: aliases are not accepted here`]),
    // It would vanish on the way into an object, and with it the refusal of what is unknown.
    Pair: (_, { key }) => {
      if (isScalar(key) && key.value === '__proto__') refuse([`${place(key.range?.[0] ?? 0)}: unknown field __proto__`]);
    },
  });
  if (of.image !== undefined) document.set('image', of.image);
  const result = schema.safeParse(document.toJS());
  if (!result.success) return refuse(result.error.issues.flatMap((issue) => describeIssue(issue, { document, schema, place })));
  return deepFreeze(result.data);
}

/** Tells one configuration's pods from another's: fields stand in the schema's order whatever the file's was. */
export function revisionOf(config: InjectorConfig): string {
  return createHash('sha256').update(JSON.stringify(config)).digest('hex').slice(0, 12);
}

/** Whether a text can be the reference of an image. */
export function isImageReference(text: string): boolean {
  return IMAGE.test(text);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) deepFreeze(member);
    Object.freeze(value);
  }
  return value;
}
