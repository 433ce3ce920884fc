// B: lets its callers be judged by its sidecar, and decides by who they are. `node b.mjs 8080` listens there (0: anywhere) and says where.

import { createServer } from 'node:http';
import { withJwtSvid } from './identity.mjs';

const AUDIENCE = 'b';
/** Who may do what here. Whole SPIFFE IDs: the same namespace and service account in another trust domain are somebody else. */
const READERS = new Set(['spiffe://cluster.local/ns/foo/sa/a']);

const server = createServer(
  withJwtSvid({ audience: AUDIENCE }, (request, response) => {
    const { spiffeId } = request.spiffe;
    const allowed = READERS.has(spiffeId);
    response.writeHead(allowed ? 200 : 403, { 'content-type': 'application/json' });
    response.end(JSON.stringify(allowed ? { hello: spiffeId } : { reason: 'NOT_A_READER', caller: spiffeId }));
  }),
);
server.listen(Number(process.argv[2] ?? 8080), () => console.log(JSON.stringify({ port: server.address().port })));
process.once('SIGTERM', () => server.close());
