// A small HTTP or HTTPS server on loopback that answers as it is told, and remembers who asked.

import { createServer as createHttp, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { commonNameOf, createCertificate, newSerial } from '../../src/ca/certificate.ts';
import { keySigner } from '../../src/ca/signer.ts';
import { boolean, extension, implicit, sequence } from '../../src/spiffe/der-builder.ts';
import { aroundNow, keyPair, keyPem } from './pki.ts';

export interface Answer {
  readonly status?: number;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Never answers. */
  readonly hang?: boolean;
}

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly body: string;
}

export class JsonServer {
  readonly asked: readonly Asked[];
  readonly origin: string;
  readonly #server: Server;

  private constructor(server: Server, origin: string, asked: readonly Asked[]) {
    this.#server = server;
    this.asked = asked;
    this.origin = origin;
  }

  static async start(answer: (asked: Asked) => Answer, tls?: { key: string; cert: string }): Promise<JsonServer> {
    const asked: Asked[] = [];
    const handle = async (request: IncomingMessage, response: ServerResponse) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(Buffer.from(chunk));
      const what = {
        method: request.method ?? '',
        path: request.url ?? '',
        authorization: request.headers.authorization,
        body: Buffer.concat(chunks).toString('utf8'),
      };
      asked.push(what);
      const { status = 200, body, headers = {}, hang = false } = answer(what);
      if (hang) return;
      response.writeHead(status, headers).end(typeof body === 'string' ? body : JSON.stringify(body));
    };
    const server = tls === undefined ? createHttp(handle) : createHttps(tls, handle);
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    return new JsonServer(server, `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`, asked);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }
}

/** A self-signed certificate for 127.0.0.1. */
export async function loopbackCertificate(): Promise<{ key: string; cert: string }> {
  const { publicKey, privateKey } = keyPair();
  const cert = await createCertificate({
    subject: commonNameOf({ commonName: 'loopback' }),
    publicKey,
    issuer: { commonName: 'loopback', signer: keySigner(privateKey) },
    validity: aroundNow(),
    serial: newSerial(),
    extensions: [
      extension('2.5.29.19', { critical: true, value: sequence(boolean(true)) }),
      extension('2.5.29.17', { critical: true, value: sequence(implicit(7, Buffer.of(127, 0, 0, 1))) }),
    ],
  });
  return { key: keyPem(privateKey), cert };
}
