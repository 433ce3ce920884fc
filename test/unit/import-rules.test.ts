// The import rules catch what they are there for, and this tree obeys them.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readSources, violations } from '../../tools/import-rules.ts';

const found = (sources: Readonly<Record<string, string>>) => violations(new Map(Object.entries(sources)));

test('this tree has no violation', () => {
  const sources = readSources(fileURLToPath(new URL('../../src', import.meta.url)));
  assert.ok(sources.size > 50);
  assert.deepEqual(violations(sources), []);
});

describe('caught', () => {
  const cases: Readonly<Record<string, readonly [sources: Record<string, string>, says: RegExp]>> = {
    'the data path importing gRPC': [
      { 'proxy/a.ts': "import { Server } from '@grpc/grpc-js';" },
      /^proxy\/a\.ts may not import the package @grpc\/grpc-js$/,
    ],
    'gRPC by a path inside the package': [{ 'proxy/a.ts': "import x from '@grpc/grpc-js/build/src/channel.js';" }, /grpc-js/],
    'gRPC by a dynamic import': [{ 'proxy/a.ts': "const grpc = await import('@grpc/grpc-js');" }, /grpc-js/],
    'gRPC for its side effects': [{ 'proxy/a.ts': "import '@grpc/grpc-js';" }, /grpc-js/],
    'gRPC by a re-export': [{ 'proxy/a.ts': "export { Server } from '@grpc/grpc-js';" }, /grpc-js/],
    'gRPC over several lines': [{ 'proxy/a.ts': "import {\n  Server,\n} from '@grpc/grpc-js';" }, /grpc-js/],
    'a type of gRPC': [{ 'proxy/a.ts': 'import type { Server } from "@grpc/grpc-js";' }, /grpc-js/],
    'YAML in the sidecar': [{ 'proxy/a.ts': "import { parse } from 'yaml';" }, /the package yaml/],
    'schemas in the sidecar': [{ 'tls/a.ts': "import { z } from 'zod';" }, /the package zod/],
    "forge's parser where peers' bytes are read": [{ 'tls/a.ts': "import asn1 from 'node-forge/lib/asn1.js';" }, /node-forge/],
    'the whole of forge, RSA, PKI and all': [{ 'spiffe/a.ts': "import forge from 'node-forge';" }, /node-forge/],
    'the pure folder importing policy': [
      { 'spiffe/a.ts': "import { x } from '../policy/model.ts';", 'policy/model.ts': '' },
      /^spiffe\/a\.ts may not import policy\/model\.ts$/,
    ],
    'policy importing the network': [
      { 'policy/a.ts': "import { x } from '../net/dial.ts';" },
      /policy\/a\.ts may not import net\/dial\.ts/,
    ],
    'the proxy importing the CA': [{ 'proxy/a.ts': "import { x } from '../ca/authority.ts';" }, /may not import ca/],
    'the proxy importing generated wire types': [{ 'proxy/a.ts': "import { x } from '../wire/gen/x.ts';" }, /may not import wire/],
    'the agent importing more of the CA than its client': [
      { 'agent/a.ts': "import { x } from '../ca/authority.ts';" },
      /agent\/a\.ts may not import ca\/authority\.ts/,
    ],
    'commands imported by a folder': [{ 'proxy/a.ts': "import { x } from '../commands/up.ts';" }, /may not import commands/],
    'commands imported by a file beside main': [
      { 'flags.ts': "import { x } from './commands/up.ts';" },
      /^flags\.ts may not import commands\/up\.ts$/,
    ],
    'a folder that is in no table': [{ 'stray/a.ts': "import { x } from '../spiffe/der.ts';" }, /stray\/a\.ts may not import/],
    'a cycle of two': [
      { 'net/a.ts': "import './b.ts';", 'net/b.ts': "import './a.ts';" },
      /^cycle: net\/a\.ts -> net\/b\.ts -> net\/a\.ts$/,
    ],
    'a cycle of three, past a file outside it': [
      { 'net/x.ts': "import './a.ts';", 'net/a.ts': "import './b.ts';", 'net/b.ts': "import './c.ts';", 'net/c.ts': "import './a.ts';" },
      /^cycle: net\/a\.ts -> net\/b\.ts -> net\/c\.ts -> net\/a\.ts$/,
    ],
    'a file importing itself': [{ 'net/a.ts': "import './a.ts';" }, /^cycle: net\/a\.ts -> net\/a\.ts$/],
  };
  for (const [name, [sources, says]] of Object.entries(cases)) {
    test(name, () => {
      const all = found(sources);
      assert.ok(
        all.some((violation) => says.test(violation)),
        JSON.stringify(all),
      );
    });
  }
});

describe('allowed', () => {
  const cases: Readonly<Record<string, Record<string, string>>> = {
    'gRPC where it is spoken': { 'discovery/a.ts': "import { status } from '@grpc/grpc-js';" },
    "the agent importing the CA's client": { 'agent/a.ts': "import { CaClient } from '../ca/client.ts';" },
    'main importing commands, commands importing anything': {
      'main.ts': "import './commands/up.ts';",
      'commands/up.ts': "import '../proxy/a.ts';\nimport '../ca/ca.ts';",
    },
    'anybody importing errors and snapshots': { 'net/a.ts': "import '../errors.ts';\nimport '../snapshot.ts';" },
    'a folder importing its own': { 'policy/kinds/a.ts': "import '../ip.ts';", 'policy/ip.ts': '' },
    'node itself': { 'spiffe/a.ts': "import { sign } from 'node:crypto';" },
    'two ways to one file, which is no cycle': {
      'net/a.ts': "import './b.ts';\nimport './c.ts';",
      'net/b.ts': "import './c.ts';",
      'net/c.ts': '',
    },
  };
  for (const [name, sources] of Object.entries(cases)) test(name, () => assert.deepEqual(found(sources), []));
});

test('what a sidecar loads at its start is watched through all that it imports', () => {
  const inner = { 'agent/agent.ts': "import { z } from 'zod';", 'observe/log.ts': '' };
  assert.deepEqual(found({ ...inner, 'commands/proxy.ts': "const a = await import('../agent/agent.ts');" }), []);
  assert.deepEqual(found({ ...inner, 'commands/proxy.ts': "import type { Agent } from '../agent/agent.ts';" }), []);
  assert.deepEqual(
    found({
      ...inner,
      'commands/proxy.ts': "import { helper } from './helper.ts';",
      'commands/helper.ts': "import {\n  startAgent,\n} from '../agent/agent.ts';",
    }),
    ['the sidecar loads agent/agent.ts: commands/proxy.ts -> commands/helper.ts'],
  );
});
