// What a refusal must look like: our one error class, the code, and a message that tells the operator what is wrong.

import assert from 'node:assert/strict';
import { type ErrorCode, HandfastError } from '../../src/errors.ts';

/** A validator for `assert.throws` and `assert.rejects`. Strings must stand in the message, patterns must match it. */
export function refusal(code: ErrorCode, ...says: readonly (string | RegExp)[]): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof HandfastError, `expected a HandfastError ${code}, got ${String(error)}`);
    assert.equal(error.code, code, error.message);
    for (const part of says) {
      const found = typeof part === 'string' ? error.message.includes(part) : part.test(error.message);
      assert.ok(found, `expected ${String(part)} in: ${error.message}`);
    }
    return true;
  };
}
