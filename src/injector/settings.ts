// What a pod's annotations change of the configuration: Istio's names, each value checked. Those of Istio's injector that mean nothing here are refused.

import { isMap, parseDocument } from 'yaml';
import { z } from 'zod';
import { HandfastError, messageOf } from '../errors.ts';
import { logLevels } from '../observe/log.ts';
import { type ForwardClientCertMode, forwardClientCertModes } from '../policy/forward-client-cert.ts';
import { isAllowedImage } from './allowed-image.ts';
import { type CaptureArguments, captureFlags } from './capture.ts';
import { type InjectorConfig, identities, isImageReference, MAX_WORKERS, type Resources, type sidecarKinds } from './config.ts';
import { IDENTITY, SECRETS } from './own-parts.ts';
import { annotationsOf, type Pod } from './pod.ts';
import { parseQuantity } from './quantity.ts';
import { unsupportedAnnotations } from './unsupported-annotations.ts';

/** How one pod's sidecar is to be. */
export interface Settings {
  readonly image: string;
  readonly sidecar: (typeof sidecarKinds)[number];
  readonly identity: (typeof identities)[number];
  readonly logLevel: (typeof logLevels)[number];
  readonly workers: number;
  /** What the application hears of its callers; undefined: as the sidecar does by itself. */
  readonly forwardClientCert: ForwardClientCertMode | undefined;
  /** `namespace/name` of those that the sidecar asks for before its application does. */
  readonly secrets: readonly string[];
  readonly holdApplication: boolean;
  readonly rewriteProbes: boolean;
  readonly resources: Resources;
  readonly readiness: { readonly initialDelaySeconds: number; readonly periodSeconds: number; readonly failureThreshold: number };
  /** Flags of `handfast iptables apply`. */
  readonly capture: readonly string[];
}

const RESOURCES = {
  requests: { cpu: 'sidecar.istio.io/proxyCPU', memory: 'sidecar.istio.io/proxyMemory' },
  limits: { cpu: 'sidecar.istio.io/proxyCPULimit', memory: 'sidecar.istio.io/proxyMemoryLimit' },
} as const;
const PROXY_CONFIG = 'proxy.istio.io/config';
const READINESS = 'readiness.status.sidecar.istio.io/';

/** Throws OBJECT_INVALID with everything that is wrong. */
export function readSettings(of: { pod: Pod; config: InjectorConfig; captureArguments: CaptureArguments }): Settings {
  const { config } = of;
  const annotations = annotationsOf(of.pod);
  const problems = unsupportedAnnotations(annotations);
  /** The annotation's value as `read` takes it; where that says undefined, one more problem. */
  const value = <T>(name: string, read: { accepted: string; parse: (text: string) => T | undefined; preset: T }): T => {
    const text = annotations[name];
    if (text === undefined) return read.preset;
    const parsed = read.parse(text);
    if (parsed === undefined) problems.push(`annotation ${name}: ${JSON.stringify(text)} is not accepted: ${read.accepted}`);
    return parsed ?? read.preset;
  };
  const truth = (name: string, preset: boolean) => value(name, { accepted: '"true" or "false"', parse: parseTruth, preset });
  const count = (name: string, { min, preset }: { min: number; preset: number }) =>
    value(name, { accepted: `a number from ${min} to ${MAX_COUNT}`, parse: (text) => parseCount(text, min), preset });
  const image = value('sidecar.istio.io/proxyImage', {
    accepted: `an image of the repository of ${config.image}, or what the injector's allowedProxyImages names`,
    parse: (text) => (isImageReference(text) && isAllowedImage(text, config) ? text : undefined),
    preset: config.image,
  });
  const logLevel = value('sidecar.istio.io/logLevel', {
    accepted: logLevels.join(', '),
    parse: (text) => logLevels.find((level) => level === text),
    preset: config.logLevel,
  });
  const proxyConfig = readProxyConfig(annotations[PROXY_CONFIG], problems);
  const settings = {
    image,
    logLevel,
    identity: value(IDENTITY, {
      accepted:
        config.inPod === undefined
          ? 'agent (the injector has no inPod to let sidecars make their keys themselves)'
          : identities.join(' or '),
      parse: (text) => identities.find((identity) => identity === text && (identity === 'agent' || config.inPod !== undefined)),
      preset: config.identity,
    }),
    sidecar: truth('sidecar.istio.io/nativeSidecar', config.sidecar === 'native') ? ('native' as const) : ('classic' as const),
    secrets: value(SECRETS, { accepted: `NAMESPACE/NAME, comma-separated, at most ${MAX_SECRETS}`, parse: parseSecrets, preset: [] }),
    workers: proxyConfig.concurrency ?? config.workers,
    forwardClientCert: proxyConfig.proxyHeaders?.forwardedClientCert,
    holdApplication: proxyConfig.holdApplicationUntilProxyStarts ?? config.holdApplicationUntilProxyStarts,
    rewriteProbes: truth('sidecar.istio.io/rewriteAppHTTPProbers', config.rewriteAppHTTPProbers),
    resources: readResources(annotations, { config, problems }),
    readiness: {
      initialDelaySeconds: count(`${READINESS}initialDelaySeconds`, { min: 0, preset: 0 }),
      periodSeconds: count(`${READINESS}periodSeconds`, { min: 1, preset: 5 }),
      failureThreshold: count(`${READINESS}failureThreshold`, { min: 1, preset: 4 }),
    },
    capture: captureFlags({ annotations, captureArguments: of.captureArguments, problems }),
  };
  if (problems.length > 0) throw new HandfastError('OBJECT_INVALID', problems.join('; '));
  return settings;
}

/** As `handfast proxy --secret` takes them. */
const MAX_SECRETS = 32;
const SECRET = /^[a-z0-9][-a-z0-9]{0,62}\/[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$/;

function parseSecrets(text: string): readonly string[] | undefined {
  const secrets = text.split(',').map((each) => each.trim());
  return secrets.length <= MAX_SECRETS && secrets.every((each) => SECRET.test(each)) ? [...new Set(secrets)] : undefined;
}

const MAX_COUNT = 86_400;

function parseTruth(text: string): boolean | undefined {
  return text === 'true' ? true : text === 'false' ? false : undefined;
}

function parseCount(text: string, min: number): number | undefined {
  const count = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  return count >= min && count <= MAX_COUNT ? count : undefined;
}

/** As in Istio, one annotation of the four puts all of the configuration's resources aside: a request alone is under no limit. */
function readResources(
  annotations: Readonly<Record<string, string>>,
  { config, problems }: { config: InjectorConfig; problems: string[] },
): Resources {
  const given = (kind: 'requests' | 'limits') =>
    Object.fromEntries(
      Object.entries(RESOURCES[kind]).flatMap(([resource, name]) => {
        const text = annotations[name];
        if (text !== undefined && parseQuantity(text) === undefined)
          problems.push(`annotation ${name}: ${JSON.stringify(text)} is not accepted: a quantity, such as 100m or 128Mi`);
        return text === undefined ? [] : [[resource, text] as const];
      }),
    );
  const [requests, limits] = [given('requests'), given('limits')];
  for (const [resource, request] of Object.entries(requests)) {
    const limit = limits[resource];
    if (limit !== undefined && (parseQuantity(request) ?? 0) > (parseQuantity(limit) ?? Number.POSITIVE_INFINITY))
      problems.push(`the sidecar's ${resource} request ${request} is more than its limit ${limit}`);
  }
  if (Object.keys({ ...requests, ...limits }).length === 0) return config.resources;
  return { ...(Object.keys(requests).length > 0 ? { requests } : {}), ...(Object.keys(limits).length > 0 ? { limits } : {}) };
}

const proxyConfigSchema = z.strictObject({
  holdApplicationUntilProxyStarts: z.boolean().optional(),
  concurrency: z.int().min(1).max(MAX_WORKERS).optional(),
  proxyHeaders: z.strictObject({ forwardedClientCert: z.enum(forwardClientCertModes).optional() }).optional(),
});

function readProxyConfig(text: string | undefined, problems: string[]): z.infer<typeof proxyConfigSchema> {
  if (text === undefined) return {};
  const refuse = (why: string) => {
    problems.push(
      `annotation ${PROXY_CONFIG}: ${why}; accepted: holdApplicationUntilProxyStarts, concurrency (1 to ${MAX_WORKERS}) and proxyHeaders.forwardedClientCert (${forwardClientCertModes.join(', ')})`,
    );
    return {};
  };
  try {
    const document = parseDocument(text, { prettyErrors: false, uniqueKeys: true, version: '1.2', stringKeys: true });
    const [error] = document.errors;
    if (error !== undefined) return refuse(`not YAML: ${error.message.split('\n')[0]}`);
    if (!isMap(document.contents)) return refuse('no settings in it');
    const result = proxyConfigSchema.safeParse(document.toJS({ maxAliasCount: 0 }));
    if (result.success) return result.data;
    const [issue] = result.error.issues;
    if (issue?.code === 'unrecognized_keys') return refuse(`${issue.keys.join(', ')} is not supported`);
    return refuse(`${issue?.path.join('.')}: ${issue?.message}`);
  } catch (error) {
    // Aliases, which could be made to grow without end.
    return refuse(messageOf(error));
  }
}
