// Preloaded into every test's process: once nothing keeps it any more it ends as main.ts ends ours, by process.exit. Node's own teardown, which that leaves out, may wait for ever for a request
// that is over (Environment::CleanupHandles, seen with 24.21 after tests that had passed), with a whole processor.

import { isMainThread } from 'node:worker_threads';

if (isMainThread)
  process.once('beforeExit', () => {
    // The last of all listeners.
    process.once('exit', (code) => process.exit(code));
  });
