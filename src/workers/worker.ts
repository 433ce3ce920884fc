// The entry of a worker thread.

import { originalDestination } from '../net/original-destination.ts';
import { runWorker } from './run-worker.ts';

runWorker({ originalDestination });
