// handfast.io WorkloadSecret: what a workload is handed in memory. Nothing that is wrong with one is ever said with its contents.

import { z } from 'zod';
import { MAX_VERSION_LENGTH, secretMemberPattern, secretVersionPattern } from '../secret-name.ts';
import { bytesOf, type SecretData, secretBounds, type WorkloadSecret } from '../workload-secret.ts';
import { objectMeta } from './object-meta.ts';

/** In characters: base64 makes four of three bytes. */
const MAX_BASE64 = Math.ceil(secretBounds.valueBytes / 3) * 4;

const version = z
  .string()
  .max(MAX_VERSION_LENGTH, `more than ${MAX_VERSION_LENGTH} characters`)
  .regex(secretVersionPattern.regex, secretVersionPattern.said);
const member = z.string().regex(secretMemberPattern.regex, secretMemberPattern.said);

const secretVersion = z
  .strictObject({
    version,
    data: z
      .record(member, z.string().max(MAX_BASE64, `more than ${secretBounds.valueBytes} bytes`).refine(isBase64, 'is not base64'))
      .default({}),
    stringData: z
      .record(
        member,
        z
          .string()
          .max(secretBounds.valueBytes, `more than ${secretBounds.valueBytes} bytes`)
          .refine((text) => Buffer.byteLength(text) <= secretBounds.valueBytes, `more than ${secretBounds.valueBytes} bytes`),
      )
      .default({}),
  })
  .superRefine(({ data, stringData }, context) => {
    const names = [...Object.keys(data), ...Object.keys(stringData)];
    const refuse = (message: string) => context.addIssue({ code: 'custom', path: [], message });
    if (names.length === 0) refuse('has no value: give data or stringData');
    if (names.length > secretBounds.values) refuse(`more than ${secretBounds.values} values`);
    if (new Set(names).size < names.length) refuse('a name stands in data and in stringData: give each value once');
  });

export const workloadSecretSchema = z
  .strictObject({
    apiVersion: z.enum(['handfast.io/v1alpha1']),
    kind: z.literal('WorkloadSecret'),
    metadata: objectMeta,
    spec: z.strictObject({
      versions: z
        .array(secretVersion)
        .min(1, 'at least one version')
        .max(secretBounds.versions, `more than ${secretBounds.versions} versions`),
      current: version,
    }),
    status: z.unknown().optional(),
  })
  .superRefine(({ spec }, context) => {
    const refuse = (path: string[], message: string) => context.addIssue({ code: 'custom', path: ['spec', ...path], message });
    const names = spec.versions.map((each) => each.version);
    if (new Set(names).size < names.length) refuse(['versions'], 'a version stands there twice: give each a name of its own');
    if (!names.includes(spec.current)) refuse(['current'], 'is none of spec.versions');
    if (bytesOf({ versions: versionsOf(spec.versions) }) > secretBounds.secretBytes)
      refuse(['versions'], `more than ${secretBounds.secretBytes} bytes together: remove versions that nobody uses`);
  });

export function workloadSecretOf({ metadata, spec }: z.output<typeof workloadSecretSchema>): WorkloadSecret {
  return { key: `${metadata.namespace}/${metadata.name}`, current: spec.current, versions: versionsOf(spec.versions) };
}

function versionsOf(versions: readonly z.output<typeof secretVersion>[]): Map<string, SecretData> {
  return new Map(
    versions.map(({ version, data, stringData }) => [
      version,
      new Map([
        ...Object.entries(data).map(([name, text]): [string, Buffer] => [name, Buffer.from(text, 'base64')]),
        ...Object.entries(stringData).map(([name, text]): [string, Buffer] => [name, Buffer.from(text)]),
      ]),
    ]),
  );
}

/** Canonical: what Node would only guess at is refused. */
function isBase64(text: string): boolean {
  return Buffer.from(text, 'base64').toString('base64') === text;
}
