// Roots and intermediates in the state directory, each checked for what it must be before anything is signed with it.

import { join } from 'node:path';
import { HandfastError } from '../errors.ts';
import { readOrCreate, readPrivate } from '../store/state-file.ts';
import { type CaKeyPair, checkRoot, isIssuedBy, makeIntermediate, makeRoot, openCaKeyPair } from './ca-key-pair.ts';
import { intermediateFile, rootFile } from './rotation-state.ts';
import type { KeyStore } from './signer.ts';

export interface CaFilesOptions {
  readonly dir: string;
  readonly trustDomain: string;
  readonly keys: KeyStore;
  readonly now: () => number;
}

export async function firstRoot(options: CaFilesOptions): Promise<CaKeyPair> {
  await readOrCreate(join(options.dir, rootFile(1)), () => makeRoot(options));
  return openRoot(1, options);
}

export async function openRoot(generation: number, { dir, keys, trustDomain }: CaFilesOptions): Promise<CaKeyPair> {
  const path = join(dir, rootFile(generation));
  const text = await readPrivate(path);
  // A new one in its place would silently be another mesh.
  if (text === undefined)
    throw new HandfastError('STATE_INVALID', `${path} is missing: restore it from a backup, or begin anew in another --state directory`);
  const root = await openCaKeyPair(text, { path, keys });
  checkRoot(root, { path, trustDomain });
  return root;
}

export async function openIntermediate(root: CaKeyPair, generation: number, options: CaFilesOptions): Promise<CaKeyPair> {
  const path = join(options.dir, intermediateFile(generation));
  const intermediate = await openCaKeyPair(await readOrCreate(path, () => makeIntermediate(root, options)), { path, keys: options.keys });
  if (!isIssuedBy(intermediate, root)) {
    throw new HandfastError(
      'STATE_INVALID',
      `${path} was not issued by ${join(options.dir, rootFile(generation))}: remove it to have a new one made`,
    );
  }
  return intermediate;
}
