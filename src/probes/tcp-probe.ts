// The application asked by a TCP connection, which is closed when it is there.

import type { TcpSocketAction } from './app-probers.ts';
import { type Asking, dialApplication, type ProbeAnswer } from './asking.ts';

/** Rejects where nobody listens. */
export async function tcpProbe({ port }: TcpSocketAction, asking: Asking): Promise<ProbeAnswer> {
  const socket = await dialApplication(port, asking);
  socket.destroy();
  return { status: 200, text: `port ${port} was connected to` };
}
