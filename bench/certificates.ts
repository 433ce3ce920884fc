// Leaf certificates for the peers and for the load clients, from the mesh's own intermediate: the same kind of chain for everybody.

import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { pemBlocks } from '../src/spiffe/pem.ts';

const run = promisify(execFile);

/** By this name nginx and haproxy know the server; neither of them can hold a SPIFFE ID against an expectation. */
export const SERVER_NAME = 'server.bench.internal';

/** Paths of PEM files: `chain` is leaf and intermediate, `both` is chain and key as haproxy wants them, `root` the trust anchor. */
export interface Credentials {
  readonly chain: string;
  readonly key: string;
  readonly both: string;
  readonly root: string;
}

/** Issues a P-256 leaf for spiffe://cluster.local/ns/bench/sa/<name>, valid for a day; a server's also carries SERVER_NAME. */
export async function issueLeaf(of: { name: string; server: boolean; caDir: string; dir: string }): Promise<Credentials> {
  const path = (kind: string) => join(of.dir, `${of.name}.${kind}.pem`);
  const issuer = join(of.caDir, 'intermediate.pem');
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const extensions = [
    'basicConstraints = critical, CA:FALSE',
    'keyUsage = critical, digitalSignature',
    'extendedKeyUsage = serverAuth, clientAuth',
    'subjectKeyIdentifier = hash',
    'authorityKeyIdentifier = keyid',
    `subjectAltName = critical, URI:spiffe://cluster.local/ns/bench/sa/${of.name}${of.server ? `, DNS:${SERVER_NAME}` : ''}`,
  ];
  await writeFile(path('public'), publicKey.export({ type: 'spki', format: 'pem' }));
  await writeFile(path('extensions'), `${extensions.join('\n')}\n`);
  const signing = ['-CA', issuer, '-CAkey', issuer, '-sha256', '-days', '1'];
  const { stdout: leaf } = await run('openssl', [
    ...['x509', '-new', '-subj', '/', '-force_pubkey', path('public')],
    ...signing,
    ...['-extfile', path('extensions')],
  ]);
  const chain = leaf + (await certificateIn(issuer));
  await writeFile(path('chain'), chain);
  await writeFile(path('key'), key, { mode: 0o600 });
  await writeFile(path('both'), chain + key, { mode: 0o600 });
  await writeFile(path('root'), await certificateIn(join(of.caDir, 'root.pem')));
  return { chain: path('chain'), key: path('key'), both: path('both'), root: path('root') };
}

/** The CA keeps each key with its certificate in one file. */
async function certificateIn(file: string): Promise<string> {
  return pemBlocks(await readFile(file, 'utf8')).find((block) => block.label === 'CERTIFICATE')?.text ?? '';
}
