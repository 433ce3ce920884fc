// The application behind every proxy: a web and echo server that does as little as it can, so that what is measured is the proxies.

import { createServer, type Socket } from 'node:net';

export const BACKEND_PORT = 8000;

const BODY = 'Hello from the application.\n';
const BLOCK = Buffer.alloc(256 * 1024, 'bulk');

function response(connection: 'keep-alive' | 'close'): string {
  return `HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ${BODY.length}\r\nconnection: ${connection}\r\n\r\n${BODY}`;
}

const KEEP_ALIVE = response('keep-alive');
const CLOSE = response('close');

/** `GET /bulk` is bytes without an end, `GET /close` is answered and the connection ended, any other GET is answered, and what is no GET is echoed. */
function serve(port: number): void {
  const server = createServer({ noDelay: true }, (socket) => {
    let unfinished = '';
    // Clients may vanish as they like.
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      const text = unfinished + chunk.toString('latin1');
      if (!text.startsWith('GET ')) {
        socket.write(chunk);
        return;
      }
      // An empty line ends a request: none has a body here.
      const requests = text.split('\r\n\r\n');
      unfinished = requests.pop() ?? '';
      if (requests.length === 0) return;
      if (text.startsWith('GET /bulk ')) pour(socket);
      else if (text.startsWith('GET /close ')) socket.end(CLOSE);
      else socket.write(KEEP_ALIVE.repeat(requests.length));
    });
  });
  server.listen({ port, host: '0.0.0.0', backlog: 4096 });
}

function pour(socket: Socket): void {
  const fill = () => {
    while (!socket.destroyed && socket.write(BLOCK));
  };
  socket.on('drain', fill);
  fill();
}

if (import.meta.main) serve(BACKEND_PORT);
