// Looks for private keys in everything the demo's processes may have written: their folders, and whatever files they hold open.

import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** PEM of any kind, and the PKCS#8 and SEC1 beginnings of a P-256 key, raw and in base64. */
const SIGNS: readonly Buffer[] = [
  Buffer.from('PRIVATE KEY-----'),
  Buffer.from('308187020100301306072a8648ce3d0201', 'hex'),
  Buffer.from('30770201010420', 'hex'),
  Buffer.from('MIGHAgEAMBMGByqGSM49AgEG'),
  Buffer.from('"kty":"EC","d"'),
];
const MAX_FILE_BYTES = 64 * 1024 * 1024;

/** Paths of the files that hold a private key. */
export function findKeys(folders: readonly string[], pids: readonly number[]): string[] {
  const files = new Set([...folders.flatMap(filesBelow), ...pids.flatMap(openFiles)]);
  return [...files].filter(holdsKey);
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function openFiles(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`)
      .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
      .filter((path) => path.startsWith('/') && !path.startsWith('/dev/') && !path.startsWith('/proc/'));
  } catch {
    // The process ended, or the descriptor was closed, while we looked.
    return [];
  }
}

function holdsKey(path: string): boolean {
  try {
    const info = statSync(path);
    if (!info.isFile() || info.size > MAX_FILE_BYTES) return false;
    const content = readFileSync(path);
    return SIGNS.some((sign) => content.includes(sign));
  } catch {
    return false;
  }
}
