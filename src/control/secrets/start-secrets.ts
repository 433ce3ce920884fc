// The secret channel of control put together: where secrets come from, what becomes of them in the records, and what is no longer needed wiped.

import { HandfastError } from '../../errors.ts';
import type { WatchableKubeApi } from '../../kube/api.ts';
import type { LeaderLease } from '../../kube/leader-lease.ts';
import type { Log } from '../../observe/log.ts';
import { AuditLog } from './audit-log.ts';
import { wipeSecret } from './entitled-secrets.ts';
import { HandedVersions } from './handed-versions.ts';
import { KubeSecrets } from './kube-secrets.ts';
import { SecretAudit } from './secret-audit.ts';
import { SecretFolder } from './secret-folder.ts';
import type { SecretSource, SecretWorld } from './secret-world.ts';

/** Where secrets stand: a folder of their own, or the API server that control follows. */
export type SecretsFrom = { readonly folder: string } | { readonly kube: WatchableKubeApi };

export interface SecretsOptions {
  readonly from: SecretsFrom;
  readonly auditLog?: string | undefined;
}

export interface RunningSecrets {
  readonly source: SecretSource;
  readonly audit: SecretAudit;
  readonly handed: HandedVersions;
  stop(): void;
}

/** Throws CONFIG_INVALID or OBJECT_INVALID when the folder or the file of records cannot be used. */
export async function startSecrets(
  { from, auditLog }: SecretsOptions,
  { trustDomain, lease, log, now }: { trustDomain: string; lease: LeaderLease | undefined; log: Log; now: () => number },
  signal: AbortSignal,
): Promise<RunningSecrets> {
  const file = auditLog === undefined ? undefined : new AuditLog(auditLog, { log });
  try {
    const audit = new SecretAudit({ log, file, now });
    const source =
      'kube' in from
        ? new KubeSecrets({ api: from.kube, trustDomain, lease, log, now })
        : new SecretFolder({ dir: from.folder, trustDomain, log });
    source.world.subscribe((next, before) => {
      audit.changed(next, before);
      if (before !== undefined) wipeGone(next, before);
    });
    await source.start(signal);
    if (source.world.current === undefined) throw new HandfastError('UNAVAILABLE', 'no secrets could be read');
    const stop = () => {
      audit.stop();
      file?.close();
    };
    return { source, audit, handed: new HandedVersions(), stop };
  } catch (error) {
    file?.close();
    throw error;
  }
}

/** A turn later: everybody has heard by then, and what was on its way was copied. */
function wipeGone(next: SecretWorld, before: SecretWorld): void {
  setImmediate(() => {
    for (const [key, secret] of before.secrets) if (next.secrets.get(key) !== secret) wipeSecret(secret);
  });
}
