// A small httpbin: GET /get answers with what it was asked, as JSON. Usage: httpbin.ts PORT

import { createServer } from 'node:http';

const server = createServer({ keepAliveTimeout: 120_000 }, (request, response) => {
  request.resume();
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify({ method: request.method, url: request.url, headers: request.headers })}\n`);
});

server.listen({ port: Number(process.argv[2]), host: '::' }, () => process.stdout.write('listening\n'));
