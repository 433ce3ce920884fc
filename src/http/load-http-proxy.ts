// http-proxy as it is to be loaded: two of its files take `util._extend`, whose first call makes Node print a deprecation warning on stderr (DEP0060). They get Object.assign, which is the same.

import { createRequire } from 'node:module';
import type HttpProxy from 'http-proxy';

const require = createRequire(import.meta.url);

/** The library's constructor. */
export function loadHttpProxy(): typeof HttpProxy {
  const util: object = require('node:util');
  const before = Object.getOwnPropertyDescriptor(util, '_extend');
  Object.defineProperty(util, '_extend', { value: Object.assign, configurable: true, writable: true });
  try {
    return require('http-proxy');
  } finally {
    if (before !== undefined) Object.defineProperty(util, '_extend', before);
  }
}
