// B: lets its callers be judged by its sidecar, and decides by who they are. `node b.mjs 8080` listens there (0: anywhere) and says where.

import { createServer } from 'node:http';
import { withJwtSvid } from './identity.mjs';

const AUDIENCE = 'b';
/** Who may do what here, by namespace and service account. */
const READERS = new Set(['foo/a']);

const server = createServer(
  withJwtSvid({ audience: AUDIENCE }, (request, response) => {
    const { namespace, serviceAccount, spiffeId } = request.spiffe;
    const allowed = READERS.has(`${namespace}/${serviceAccount}`);
    response.writeHead(allowed ? 200 : 403, { 'content-type': 'application/json' });
    response.end(JSON.stringify(allowed ? { hello: spiffeId } : { reason: 'NOT_A_READER', caller: spiffeId }));
  }),
);
server.listen(Number(process.argv[2] ?? 8080), () => console.log(JSON.stringify({ port: server.address().port })));
process.once('SIGTERM', () => server.close());
