// A: asks its sidecar for a token for B, and calls B with it. `node a.mjs http://b.foo:8080/` prints B's answer.

import { request } from 'node:http';
import { jwtSvid } from './identity.mjs';

const token = await jwtSvid('b');
const call = request(
  process.argv[2] ?? 'http://b.foo:8080/',
  { headers: { authorization: `Bearer ${token}` }, timeout: 15_000 },
  async (response) => {
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    console.log(JSON.stringify({ status: response.statusCode, body: JSON.parse(text) }));
  },
);
call.on('timeout', () => call.destroy(new Error('B did not answer in time')));
call.end();
