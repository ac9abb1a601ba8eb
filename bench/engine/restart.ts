/** A process that opens a store, answers once, and tells how long that took and what it occupies. */
import { utf8 } from '../../src/base/bytes.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';

const begun = performance.now();
const engine = await openLmdbEngine(process.argv[2]!, { create: false });
const { kvs } = await engine.range({ key: utf8(process.argv[3]!) });
const firstAnswerMs = performance.now() - begun;
await engine.scrubbed;
const scrubbedMs = performance.now() - begun;
const { rss, heapUsed } = process.memoryUsage();
process.stdout.write(
  `${JSON.stringify({ found: kvs.length, firstAnswerMs, scrubbedMs, rss, heapUsed })}\n`,
);
await engine.close();
