// An SDS server whose every answer a test decides.

import { type Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceService } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { newServer } from '../../src/wire/grpc.ts';

export const SECRET_TYPE = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

export const bytes = (pem: string) => ({ specifier: { $case: 'inlineBytes' as const, value: Buffer.from(pem) } });

export function tlsSecret(pem: { chain?: string; key?: string }): Secret {
  return {
    name: 'default',
    type: {
      $case: 'tlsCertificate',
      value: {
        certificateChain: pem.chain === undefined ? undefined : bytes(pem.chain),
        privateKey: pem.key === undefined ? undefined : bytes(pem.key),
        password: undefined,
      },
    },
  };
}

export function bundleSecret(pem: string): Secret {
  return {
    name: 'ROOTCA',
    type: { $case: 'validationContext', value: { trustedCa: bytes(pem), crl: undefined, customValidatorConfig: undefined } },
  };
}

export class ScriptedSds implements AsyncDisposable {
  readonly requests: DiscoveryRequest[] = [];
  streams = 0;
  readonly #server: Server = newServer();
  readonly #waiting = new Set<() => void>();
  #call: ServerDuplexStream<DiscoveryRequest, DiscoveryResponse> | undefined;
  #nonce = 0;

  static async start(socket: string): Promise<ScriptedSds> {
    const sds = new ScriptedSds();
    sds.#server.addService(SecretDiscoveryServiceService, {
      streamSecrets: (call: ServerDuplexStream<DiscoveryRequest, DiscoveryResponse>) => {
        sds.#call = call;
        sds.streams++;
        call.on('data', (request: DiscoveryRequest) => {
          sds.requests.push(request);
          for (const wake of [...sds.#waiting]) wake();
        });
        call.on('error', () => undefined);
        call.on('end', () => call.end());
        for (const wake of [...sds.#waiting]) wake();
      },
    });
    await new Promise<void>((resolve, reject) => {
      sds.#server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) => (error === null ? resolve() : reject(error)));
    });
    return sds;
  }

  /** Sends one response and resolves with the client's answer to it. */
  async push(secrets: readonly Secret[], typeUrl = SECRET_TYPE): Promise<DiscoveryRequest> {
    await this.#until(() => (this.#call === undefined ? undefined : true));
    const nonce = `nonce-${++this.#nonce}`;
    this.#call?.write({
      versionInfo: `version-${this.#nonce}`,
      typeUrl: SECRET_TYPE,
      nonce,
      resources: secrets.map((secret) => ({ typeUrl, value: Buffer.from(Secret.encode(secret).finish()) })),
    });
    return this.#until(() => this.requests.find((request) => request.responseNonce === nonce));
  }

  /** The first request of the latest stream. */
  subscribed(): Promise<DiscoveryRequest> {
    return this.#until(() => this.requests.find((request) => request.responseNonce === ''));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.forceShutdown();
  }

  #until<T>(check: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the SDS client did not do it within 10 s')), 10_000);
      const look = () => {
        const found = check();
        if (found === undefined) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }
}
