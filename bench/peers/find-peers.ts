// The peers that are on this machine, and why the others are left out.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileLimit } from '../file-limit.ts';
import { type PeerName, peerNames } from '../scenario.ts';
import { checkout } from '../testbed.ts';
import { envoy } from './envoy.ts';
import { ghostunnel } from './ghostunnel.ts';
import { haproxy } from './haproxy.ts';
import { hitch } from './hitch.ts';
import { nginx } from './nginx.ts';
import type { Peer } from './peer.ts';
import { stunnel } from './stunnel.ts';

/** Where `make bench-peers` puts what Debian has not got. */
const ENVOY = join(checkout, '.interop/envoy/bin/envoy');
const GHOSTUNNEL = join(checkout, '.interop/go/ghostunnel');

export interface Skipped {
  readonly peer: PeerName;
  readonly reason: string;
}

export function findPeers(options: { wanted: ReadonlySet<string>; nginxModules: string }): { found: Peer[]; skipped: Skipped[] } {
  const found: Peer[] = [];
  const skipped: Skipped[] = [];
  for (const name of peerNames) {
    const peer = options.wanted.has(name) ? look(name, options.nginxModules) : 'not asked for';
    if (typeof peer === 'string') skipped.push({ peer: name, reason: peer });
    else found.push(peer);
  }
  return { found, skipped };
}

function look(name: PeerName, nginxModules: string): Peer | string {
  const missing = 'not installed: make bench-peers';
  switch (name) {
    case 'haproxy': {
      const version = match(say('haproxy', '-v'), /HAProxy version ([\d.]+)/);
      return version === undefined ? missing : haproxy({ version, fileLimit: fileLimit(), withoutPq: withoutPq() });
    }
    case 'nginx': {
      const version = match(say('nginx', '-v'), /nginx\/(\S+)/);
      const streamModule = join(nginxModules, 'ngx_stream_module.so');
      if (version === undefined) return missing;
      if (!existsSync(streamModule)) return 'no ngx_stream_module.so: make bench-peers, or name its directory with --nginx-modules';
      return nginx({ version, streamModule, withoutPq: withoutPq() });
    }
    case 'envoy':
    case 'envoy-hbone': {
      if (!existsSync(ENVOY)) return missing;
      const version = match(say(ENVOY, '--version'), /\/(\d+\.\d+\.\d+)\//) ?? 'unknown';
      return envoy({ version, binary: ENVOY }).find((peer) => peer.name === name) ?? missing;
    }
    case 'ghostunnel':
      if (!existsSync(GHOSTUNNEL)) return missing;
      return ghostunnel({ version: match(say(GHOSTUNNEL, '--version'), /rev v?(\S+)/) ?? 'unknown', binary: GHOSTUNNEL });
    case 'stunnel': {
      const command = ['stunnel4', 'stunnel'].find((candidate) => say(candidate, '-version') !== '');
      if (command === undefined) return missing;
      return stunnel({ version: match(say(command, '-version'), /stunnel ([\d.]+)/) ?? 'unknown', command, withoutPq: withoutPq() });
    }
    case 'hitch': {
      const version = match(say('hitch', '--version'), /hitch (\S+)/);
      return version === undefined ? missing : hitch({ version, withoutPq: withoutPq() });
    }
  }
}

/** Debian's packages share the system's OpenSSL; ML-KEM came with 3.5. */
function withoutPq(): string | undefined {
  const version = match(say('openssl', 'version'), /OpenSSL (\d+\.\d+\.\d+)/) ?? '0.0.0';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > 3 || (major === 3 && minor >= 5) ? undefined : `its OpenSSL ${version} has no X25519MLKEM768`;
}

function say(command: string, flag: string): string {
  const { stdout, stderr } = spawnSync(command, [flag], { encoding: 'utf8' });
  return `${stdout ?? ''}${stderr ?? ''}`;
}

function match(text: string, pattern: RegExp): string | undefined {
  return pattern.exec(text)?.[1];
}
