import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Client, connect } from './client.ts';
import type { Engine } from './engine/contract.ts';
import { openMemoryEngine } from './engine/memory/engine.ts';
import { FencedDirectory } from './guard/file.ts';
import { type HoldfastMetrics, holdfastMetrics } from './metrics.ts';
import type { Answered, Ended } from './recipes/observation.ts';
import { eventually } from './testing/waiting.ts';

let engine: Engine;
let metrics: HoldfastMetrics;
let hf: Client;

beforeEach(async () => {
  engine = await openMemoryEngine();
  metrics = holdfastMetrics();
  hf = await connect(engine, { observer: metrics.observer });
});

afterEach(async () => {
  await hf.close();
  await engine.close();
});

function value(series: string): number {
  const line = metrics
    .render()
    .split('\n')
    .find((text) => text.startsWith(`${series} `));
  if (line === undefined) throw new Error(`${series} is not there`);
  return Number(line.slice(series.length + 1));
}

test('a client counts its attempts, its waiters and its holds, and names none', async () => {
  const grant = await hf.lock('like-no-other').acquire();
  expect(await hf.lock('like-no-other').tryAcquire()).toBeUndefined();
  const waiting = hf.lock('like-no-other').acquire();
  expect(value('holdfast_waiters')).toBe(1);
  expect(value('holdfast_hold_seconds_count')).toBe(0);
  await new Promise((resolve) => setTimeout(resolve, 40));
  await grant.release();
  await (await waiting).release();
  expect(value('holdfast_waiters')).toBe(0);
  expect(value('holdfast_acquire_total{result="acquired"}')).toBe(2);
  expect(value('holdfast_acquire_total{result="busy"}')).toBe(1);
  expect(value('holdfast_acquire_wait_seconds_count')).toBe(3);
  expect(value('holdfast_acquire_wait_seconds_sum')).toBeGreaterThan(0.03);
  expect(value('holdfast_hold_seconds_count')).toBe(2);
  expect(value('holdfast_lost_total')).toBe(0);
  expect(metrics.render()).not.toContain('like-no-other');
});

test('a loss is counted', async () => {
  const { session } = await hf.lock('a').acquire();
  await engine.revokeLease(session.id);
  await hf.engine.range({ key: new Uint8Array([1]) });
  await session.call(() => engine.keepAlive(session.id)).catch(() => {});
  await eventually(() => value('holdfast_lost_total') === 1, 'the loss to be seen');
  expect(value('holdfast_hold_seconds_count')).toBe(1);
});

test('a guard counts what it admits and refuses', async () => {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-metrics-'));
  const guard = await FencedDirectory.open(path, metrics.guard);
  await guard.write(34n, 'a', 'new');
  await guard.write(33n, 'a', 'old').catch(() => {});
  await guard.write('nonsense', 'a', 'x').catch(() => {});
  expect(value('holdfast_guard_admitted_total{guard="file"}')).toBe(1);
  expect(value('holdfast_guard_rejected_total{guard="file"}')).toBe(2);
  await guard.close();
  rmSync(path, { recursive: true, force: true });
});

test('hooks of one’s own hear everything, and cannot disturb', async () => {
  const heard: (Answered | Ended)[] = [];
  const own = await connect(engine, {
    observer: {
      onAsk: () => {
        throw new Error('of the hook');
      },
      onAnswer: (event) => heard.push(event),
      onEnd: (event) => heard.push(event),
    },
  });
  const token = await own.lock('a').run((grant) => grant.token);
  expect(heard).toMatchObject([
    { recipe: 'lock', name: 'a', result: 'acquired', token },
    { recipe: 'lock', name: 'a', reason: 'released', token },
  ]);
  await own.close();
});

test('a client tells where it stands', async () => {
  expect(hf.stats()).toEqual({ sessions: 0, holdings: 0 });
  const grant = await hf.lock('a').acquire();
  const both = await hf.locks(['b', 'c']).acquire();
  expect(hf.stats()).toEqual({ sessions: 1, holdings: 3 });
  await grant.release();
  await both.release();
  expect(hf.stats()).toEqual({ sessions: 1, holdings: 0 });
  await hf.close();
  expect(hf.stats()).toEqual({ sessions: 0, holdings: 0 });
});
