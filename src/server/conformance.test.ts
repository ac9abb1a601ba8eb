/** The conformance suite through our own client and server: every rule must survive the wire. */
import { describe, it } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import { seededRandom } from '../base/random.ts';
import { open } from '../engine/etcd/open.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { runConformance } from '../testing/conformance/run.ts';
import type { Open } from '../testing/conformance/suite.ts';
import { serve } from './serve.ts';

const openThroughServer: Open = async ({ quotaBytes = 0 }) => {
  const behind = await openMemoryEngine({ random: seededRandom(1), quotaBytes });
  // An act of an operator that changes no key has a revision of its own with the log.
  const server = await serve({ engine: behind, listen: { port: 0 }, audit: false });
  const url = `etcd://127.0.0.1:${server.port}`;
  let engine = await open(url);
  return {
    engine,
    prefix: utf8('test/'),
    patienceMs: 10_000,
    reopen: async () => {
      await engine.close();
      engine = await open(url);
      return engine;
    },
    dispose: async () => {
      await engine.close();
      await server.close();
      await behind.close();
    },
  };
};

runConformance(
  { describe, it },
  {
    name: 'our server through the etcd engine',
    open: openThroughServer,
    skip: [
      { reason: 'time is the server’s own clock', needs: ['clock'] },
      { reason: 'operators have the command line', needs: ['operator'] },
    ],
  },
);
