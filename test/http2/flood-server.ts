/**
 * The server under attack, in a process of its own so that its memory can be told. Talks over IPC:
 * it sends its ports once, and `{ rss, lag }` when asked.
 */
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Limits, Rate } from '../../src/wire/http2/limits.ts';
import { listen } from '../../src/wire/net/server.ts';
import { Echo } from './harness.ts';

const [mode, keyFile, certFile] = process.argv.slice(2);
const off = mode === 'off';
const endless: Rate = { burst: Number.POSITIVE_INFINITY, perSecond: 0 };
const never = Number.POSITIVE_INFINITY;

const noLimits: Limits = {
  frameBytes: 16_384,
  headerListBytes: never,
  headers: never,
  headerBlockBytes: never,
  headerBombBytes: never,
  continuations: never,
  concurrentStreams: never,
  settingsEntries: never,
  bufferedBytes: never,
  queuedBytes: never,
  resets: endless,
  pings: endless,
  settings: endless,
  emptyFrames: endless,
  windowUpdates: endless,
  idleFrames: endless,
};
/** The defaults, but shorter, so that an attack on patience ends within a test. */
const short = {
  handshakeTimeoutMs: 1_000,
  frameTimeoutMs: 1_000,
  idleTimeoutMs: 1_000,
  writeTimeoutMs: 1_000,
  maxAgeGraceMs: 500,
  sweepMs: 200,
  maxConnectionsPerAddress: 600,
};
const patient = {
  handshakeTimeoutMs: 2 ** 31 - 1,
  frameTimeoutMs: never,
  idleTimeoutMs: never,
  writeTimeoutMs: never,
  maxConnectionsPerAddress: never,
};

const options = {
  accept: () => new Echo(),
  ...(off ? { limits: noLimits, ...patient } : short),
};
const plain = await listen(options);
const tls = await listen({
  ...options,
  tls: { key: readFileSync(keyFile!), cert: readFileSync(certFile!) },
});
const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();

process.on('message', () => {
  const lag = delay.max / 1e6;
  delay.reset();
  process.send?.({ rss: process.memoryUsage.rss(), lag, connections: plain.connections });
});
process.on('disconnect', () => process.exit(0));
process.send?.({ plain: plain.port, tls: tls.port });
