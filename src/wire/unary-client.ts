// Unary calls to one target over one channel, which follows the target's credentials: calls under way finish on the channel they began on.

import { Channel, type ChannelCredentials, type ChannelOptions, type Client, type ClientOptions, type ServiceError } from '@grpc/grpc-js';
import { channelOptions } from './grpc.ts';
import { type GrpcTarget, nameOptions } from './grpc-target.ts';

type ServiceClient<C extends Client> = new (address: string, credentials: ChannelCredentials, options: Partial<ClientOptions>) => C;

interface Slot {
  readonly credentials: ChannelCredentials;
  readonly channel: Channel;
  calls: number;
  retired: boolean;
}

export class UnaryClient {
  readonly #target: GrpcTarget;
  readonly #options: ChannelOptions;
  #slot: Slot | undefined;

  constructor(target: GrpcTarget) {
    this.#target = target;
    this.#options = { ...channelOptions, ...nameOptions(target) };
  }

  /** Rejects with gRPC's ServiceError. */
  async call<C extends Client, Response>(
    Service: ServiceClient<C>,
    invoke: (client: C, callback: (error: ServiceError | null, response: Response) => void) => void,
  ): Promise<Response> {
    const slot = this.#current();
    slot.calls++;
    try {
      const client = new Service(this.#target.address, slot.credentials, { ...this.#options, channelOverride: slot.channel });
      return await new Promise<Response>((resolve, reject) => {
        invoke(client, (error, response) => (error === null ? resolve(response) : reject(error)));
      });
    } finally {
      slot.calls--;
      if (slot.retired && slot.calls === 0) slot.channel.close();
    }
  }

  close(): void {
    if (this.#slot !== undefined) retire(this.#slot);
    this.#slot = undefined;
  }

  #current(): Slot {
    const credentials = this.#target.credentials();
    if (this.#slot?.credentials === credentials) return this.#slot;
    this.close();
    const channel = new Channel(this.#target.address, credentials, this.#options);
    this.#slot = { credentials, channel, calls: 0, retired: false };
    return this.#slot;
  }
}

function retire(slot: Slot): void {
  slot.retired = true;
  if (slot.calls === 0) slot.channel.close();
}
