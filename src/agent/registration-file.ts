// The file that says which local process may be which workload (`handfast agent --workloads FILE`), from YAML to registrations.

import { isAbsolute } from 'node:path';
import { isMap, isScalar, LineCounter, parseDocument, visit } from 'yaml';
import { z } from 'zod';
import { HandfastError, messageOf } from '../errors.ts';
import { parseSpiffeId, type SpiffeId } from '../spiffe/spiffe-id.ts';
import { describeIssue, offsetOf } from '../yaml/schema-problems.ts';
import { objection, type Selectors } from './selectors.ts';

/** One entry of the file. */
export interface RegistrationSpec {
  readonly spiffeId: SpiffeId;
  /** Read by the agent, so that callers without a token can be served. */
  readonly tokenFile: string;
  readonly selectors: Selectors;
}

const MAX_UID = 2 ** 32 - 2;

const absolutePath = z.string().refine(isAbsolute, 'give an absolute path');

const spiffeId = z.string().transform((uri, context): SpiffeId => {
  try {
    const id = parseSpiffeId(uri);
    if (id.path !== '') return id;
    context.addIssue({ code: 'custom', message: `${uri} names a trust domain, not a workload` });
  } catch (error) {
    context.addIssue({ code: 'custom', message: messageOf(error) });
  }
  return z.NEVER;
});

const schema = z.strictObject({
  workloads: z.array(
    z.strictObject({
      spiffeId,
      tokenFile: absolutePath,
      selectors: z
        .strictObject({
          networkNamespace: absolutePath.optional(),
          // The root would match every process there is.
          cgroup: z
            .string()
            .regex(/^(\/(?!\.{1,2}(\/|$))[^/\n]+)+$/, 'give a path of cgroup v2 below the root, such as /system.slice/httpbin.service')
            .optional(),
          uid: z.int().min(0).max(MAX_UID).optional(),
        })
        .refine((selectors) => Object.values(selectors).some((value) => value !== undefined), {
          message: 'at least one of networkNamespace, cgroup, uid: an empty selector would match every process',
        }),
    }),
  ),
});

/** Throws CONFIG_INVALID whose message has one line a problem: `file:line: what is wrong; what is accepted`. */
export function parseRegistrations(text: string, name: string): RegistrationSpec[] {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, version: '1.2', stringKeys: true });
  const place = (offset: number) => `${name}:${lines.linePos(offset).line}`;
  const refuse = (problems: readonly string[]) => {
    throw new HandfastError('CONFIG_INVALID', problems.join('\n'));
  };
  const [error] = document.errors;
  if (error !== undefined) refuse([`${place(error.pos[0])}: not YAML: ${error.message.split('\n')[0]}`]);
  if (!isMap(document.contents)) refuse([`${name}:1: no list of workloads in it; for none write "workloads: []"`]);
  if (!text.endsWith('\n')) refuse([`${place(text.length)}: the last line does not end: half written? End the file with a newline`]);
  visit(document, {
    Alias: (_, alias) => refuse([`${place(alias.range?.[0] ?? 0)}: aliases are not accepted here`]),
    // It would vanish on the way into an object, and with it the refusal of what is unknown.
    Pair: (_, { key }) => {
      if (isScalar(key) && key.value === '__proto__') refuse([`${place(key.range?.[0] ?? 0)}: unknown field __proto__`]);
    },
  });
  const result = schema.safeParse(document.toJS());
  if (!result.success) return refuse(result.error.issues.flatMap((issue) => describeIssue(issue, { document, schema, place }))) ?? [];
  const objections = result.data.workloads.flatMap(({ selectors }, index) => {
    const against = objection(selectors);
    const path = ['workloads', String(index), 'selectors'];
    return against === undefined ? [] : [`${place(offsetOf(document, path))}: ${path.join('.')}: ${against}`];
  });
  if (objections.length > 0) refuse(objections);
  return result.data.workloads;
}
