// A process that opens an SDS stream and, if it is told to, hands its socket to another program and ends: that one reads on, and proves nothing.

import { spawn } from 'node:child_process';
import { DiscoveryRequest } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SECRET_TYPE } from './sds-server.ts';
import { uncovered } from './uncovered.ts';

/** argv: socket, request in base64, token or '', 'hand-on' or nothing. `cat` reads on from the connection as it is: what it prints is HTTP/2. */
const SCRIPT = `
const [, path, request, token, handOn] = process.argv;
const connection = require('node:net').connect(path);
const session = require('node:http2').connect('http://localhost', { createConnection: () => connection });
session.on('error', () => process.exit(3));
const authorization = token === '' ? {} : { authorization: 'Bearer ' + token };
const stream = session.request({ ':method': 'POST', ':path': '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets', 'content-type': 'application/grpc', te: 'trailers', ...authorization });
stream.on('error', () => undefined);
stream.on('data', (chunk) => {
  process.stdout.write(chunk);
  if (handOn === undefined) return;
  const holder = require('node:child_process').spawn('cat', [], { stdio: [connection, 'inherit', 'ignore'], detached: true });
  require('node:fs').writeSync(1, 'handed on to ' + holder.pid + ' ');
  process.exit();
});
const body = Buffer.from(request, 'base64');
const head = Buffer.alloc(5);
head.writeUInt32BE(body.length, 1);
stream.write(Buffer.concat([head, body]));`;

export class ForeignStream implements AsyncDisposable {
  readonly #said: Buffer[] = [];
  readonly #child;
  readonly #exited: Promise<unknown>;

  constructor(path: string, options: { token?: string; handOn?: boolean; wrap?: readonly string[] }) {
    const request = DiscoveryRequest.encode({
      versionInfo: '',
      node: undefined,
      resourceNames: ['default'],
      typeUrl: SECRET_TYPE,
      responseNonce: '',
      errorDetail: undefined,
    }).finish();
    const argv = [path, Buffer.from(request).toString('base64'), options.token ?? '', ...(options.handOn === true ? ['hand-on'] : [])];
    const [file = '', ...args] = [...(options.wrap ?? []), process.execPath, '-e', SCRIPT, ...argv];
    this.#child = spawn(file, args, { env: uncovered(), stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child.stdout.on('data', (chunk) => this.#said.push(chunk));
    this.#exited = new Promise((resolve) => this.#child.once('exit', resolve));
  }

  /** How many private keys it has been given, whoever reads them now. */
  get keys(): number {
    return Buffer.concat(this.#said).toString('latin1').split('BEGIN PRIVATE KEY').length - 1;
  }

  /** Whoever reads on, once the socket was handed on. */
  get holder(): number | undefined {
    const [, pid] = /handed on to (\d+) /.exec(Buffer.concat(this.#said).toString('latin1')) ?? [];
    return pid === undefined ? undefined : Number(pid);
  }

  async exited(): Promise<void> {
    await this.#exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { holder } = this;
    try {
      if (holder !== undefined) process.kill(holder, 'SIGKILL');
    } catch {
      // It has ended with its connection.
    }
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
