/** The conformance suite on the memory engine; the other engines have files of their own. */
import { describe, it } from 'vitest';
import { runConformance } from '../src/testing/conformance/run.ts';
import { openMemory } from './engines.ts';

runConformance(
  { describe, it },
  {
    name: 'memory',
    open: openMemory,
    skip: [{ reason: 'a memory engine is gone with its process', needs: ['reopen'] }],
  },
);
