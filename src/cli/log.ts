/**
 * Lines of JSON as pino writes them, on standard error, that never hold anybody up: when whoever
 * reads them stops reading, lines are dropped and counted, and the count is told when there is room
 * again. What is secret does not get in.
 */
import { hostname } from 'node:os';
import { sleep } from '../base/clock.ts';
import { systemClock } from '../base/system.ts';
import type { Log, LogLevel } from '../server/serve.ts';
import { redacted, scrubbed } from './redaction.ts';

const WAITING_BYTES_MAX = 256 * 1024;

export type Threshold = LogLevel | 'trace' | 'fatal' | 'silent';

/** Pino's numbers. */
export const LEVELS: Readonly<Record<Threshold, number>> = {
  trace: 10,
  debug: 20,
  info: 30,
  warn: 40,
  error: 50,
  fatal: 60,
  silent: Number.POSITIVE_INFINITY,
};

export interface Logger {
  readonly log: Log;
  /** Lines below it are not written. @default info */
  threshold: Threshold;
  /** Whether everything has been taken by its reader, who is given so long. */
  flushed(patienceMs: number): Promise<boolean>;
}

const LOOK_EVERY_MS = 20;

export function logger(out: NodeJS.WriteStream = process.stderr): Logger {
  let dropped = 0;
  const origin = { pid: process.pid, hostname: hostname() };
  // A pipe is written synchronously by default, which would stop the whole server with its reader.
  (out as { _handle?: { setBlocking?(on: boolean): void } })._handle?.setBlocking?.(false);
  out.on('error', () => {});
  const write: Log = (level, message, details = {}) => {
    if (LEVELS[level] < LEVELS[made.threshold]) return;
    if (out.writableLength > WAITING_BYTES_MAX) {
      dropped++;
      return;
    }
    const missing = dropped > 0 ? { droppedBefore: dropped } : {};
    dropped = 0;
    out.write(`${lineOf(level, message, { ...origin, ...fields(details), ...missing })}\n`);
  };
  const made: Logger = {
    log: write,
    threshold: 'info',
    async flushed(patienceMs) {
      const until = systemClock.now() + patienceMs;
      while (out.writableLength > 0 && systemClock.now() < until) {
        await sleep(systemClock, LOOK_EVERY_MS);
      }
      return out.writableLength === 0;
    },
  };
  return made;
}

/** The fields that are pino's own; a detail of such a name would stand twice in the line. */
const OWN = new Set(['level', 'time', 'pid', 'hostname', 'msg', 'droppedBefore']);

function fields(details: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(details).map(([name, value]) => [
      OWN.has(name) ? `${name}_` : name,
      redacted(name, value),
    ]),
  );
}

function lineOf(level: LogLevel, message: string, rest: Record<string, unknown>): string {
  return JSON.stringify({
    level: LEVELS[level],
    time: Date.now(),
    ...rest,
    msg: scrubbed(message),
  });
}
