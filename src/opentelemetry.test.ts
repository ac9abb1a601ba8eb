import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { registerSpans } from '../test/support/spans.ts';
import { utf8 } from './base/bytes.ts';
import { type Client, type ClientOptions, connect } from './client.ts';
import type { Engine } from './engine/contract.ts';
import { openMemoryEngine } from './engine/memory/engine.ts';
import { FencedDirectory } from './guard/file.ts';
import { HoldfastError } from './model/errors.ts';
import { openTelemetry } from './opentelemetry.ts';
import { type RunningServer, serve } from './server/serve.ts';
import { eventually } from './testing/waiting.ts';
import { KVService, WatchService } from './wire/messages/services.ts';
import { GrpcClient } from './wire/net/grpc-client.ts';

const spans = registerSpans();
const tracer = openTelemetry();

let engine: Engine;
const closing: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  engine = await openMemoryEngine();
  spans.clear();
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  await engine.close();
});

async function serving(traced: boolean): Promise<RunningServer> {
  const server = await serve({ engine, listen: { port: 0 }, ...(traced ? { tracer } : {}) });
  closing.push(() => server.close());
  return server;
}

async function clientOn(target: string | Engine, options: ClientOptions = {}): Promise<Client> {
  const client = await connect(target, { tracer, ...options });
  closing.push(() => client.close());
  return client;
}

function only(name: string): ReadableSpan {
  const found = spans.named(name);
  expect(found.map((span) => span.name)).toEqual([name]);
  return found[0]!;
}

const idOf = (span: ReadableSpan): string => span.spanContext().spanId;
const traceOf = (span: ReadableSpan): string => span.spanContext().traceId;

describe('a lock', () => {
  test('that is run is an acquire and a hold, and the work is part of the hold', async () => {
    const hf = await clientOn(engine);
    const token = await hf.lock('orders/42').run(async (grant) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      trace.getTracer('user').startSpan('work').end();
      return grant.token;
    });
    const acquire = only('holdfast.acquire');
    expect(acquire.attributes).toMatchObject({
      'holdfast.resource': 'orders/42',
      'holdfast.recipe': 'lock',
      'holdfast.backend': 'memory',
      'holdfast.result': 'acquired',
      'holdfast.token': String(token),
    });
    expect(acquire.attributes['holdfast.wait_ms']).toBeGreaterThanOrEqual(0);
    const hold = only('holdfast.hold');
    expect(hold.attributes).toMatchObject({
      'holdfast.resource': 'orders/42',
      'holdfast.token': String(token),
      'holdfast.reason': 'released',
    });
    expect(hold.status.code).toBe(SpanStatusCode.UNSET);
    const work = only('work');
    expect(work.parentSpanContext?.spanId).toBe(idOf(hold));
    expect(traceOf(work)).toBe(traceOf(hold));
  });

  test('is part of what its caller does', async () => {
    const hf = await clientOn(engine);
    const outer = tracer.start('outer');
    await tracer.within(outer, () => hf.lock('a').run(() => undefined));
    outer.end();
    const parent = idOf(only('outer'));
    expect(only('holdfast.acquire').parentSpanContext?.spanId).toBe(parent);
    expect(only('holdfast.hold').parentSpanContext?.spanId).toBe(parent);
  });

  test('that is busy or not free in time says so', async () => {
    const hf = await clientOn(engine);
    const holder = await connect(engine);
    await holder.lock('a').acquire();
    expect(await hf.lock('a').tryAcquire()).toBeUndefined();
    await expect(hf.lock('a').acquire({ wait: 30 })).rejects.toThrow('not free');
    const [tried, waited] = spans.named('holdfast.acquire');
    expect(tried?.attributes['holdfast.result']).toBe('busy');
    expect(tried?.status.code).toBe(SpanStatusCode.UNSET);
    expect(waited?.attributes['holdfast.result']).toBe('not-acquired');
    expect(waited?.attributes['holdfast.wait_ms']).toBeGreaterThanOrEqual(29);
    expect(waited?.status.code).toBe(SpanStatusCode.ERROR);
    expect(spans.named('holdfast.hold')).toEqual([]);
    await holder.close();
  });

  test('tells renewals as events, and a loss as an error', async () => {
    const hf = await clientOn(engine, { ttl: 400 });
    const grant = await hf.lock('a').acquire();
    await new Promise((resolve) => setTimeout(resolve, 500));
    grant.ensureHeld();
    await engine.revokeLease(grant.session.id);
    await eventually(() => spans.named('holdfast.hold').length === 1, 'the hold to end');
    const hold = only('holdfast.hold');
    const renewals = hold.events.filter((event) => event.name === 'holdfast.renew');
    expect(renewals.length).toBeGreaterThanOrEqual(2);
    expect(renewals[0]?.attributes?.['holdfast.late']).toBe(false);
    expect(hold.attributes['holdfast.reason']).toBe('revoked');
    expect(hold.status.code).toBe(SpanStatusCode.ERROR);
  });

  test('is not spoken of by a client without a tracer', async () => {
    const hf = await connect(engine);
    await hf.lock('a').run(() => undefined);
    await hf.close();
    expect(spans.all()).toEqual([]);
  });
});

test('every recipe that grants something makes both spans', async () => {
  const hf = await clientOn(engine);
  await hf.readWriteLock('rw').read(() => undefined);
  await hf.readWriteLock('rw').write(() => undefined);
  await hf.semaphore('s', 2).run(() => undefined);
  await hf.locks(['m', 'n']).run(() => undefined);
  await hf.election('e').run(() => undefined);
  const kinds = (name: string): unknown[] =>
    spans.named(name).map((span) => span.attributes['holdfast.recipe']);
  const expected = ['read-write-lock', 'read-write-lock', 'semaphore', 'multi-lock', 'election'];
  expect(kinds('holdfast.acquire')).toEqual(expected);
  expect(kinds('holdfast.hold')).toEqual(expected);
});

describe('a server', () => {
  test('goes on from the context in the metadata of our engine', async () => {
    const server = await serving(true);
    const hf = await clientOn(`etcd://127.0.0.1:${server.port}`);
    await hf.session();
    spans.clear();
    const grant = await hf.lock('a').acquire();
    const acquire = only('holdfast.acquire');
    const txn = only('etcdserverpb.KV/Txn');
    expect(traceOf(txn)).toBe(traceOf(acquire));
    expect(txn.parentSpanContext?.spanId).toBe(idOf(acquire));
    expect(txn.parentSpanContext?.isRemote).toBe(true);
    expect(txn.kind).toBe(SpanKind.SERVER);
    expect(txn.attributes).toEqual({
      'rpc.system': 'grpc',
      'rpc.service': 'etcdserverpb.KV',
      'rpc.method': 'Txn',
      'rpc.grpc.status_code': 0,
    });
    await grant.release();
  });

  test('makes none without a tracer, and our engine carries none without one', async () => {
    const silent = await serving(false);
    const client = new GrpcClient({ port: silent.port });
    await client.unary(KVService.Range, { key: utf8('a') });
    expect(spans.all()).toEqual([]);
    client.destroy();
    const server = await serving(true);
    const hf = await connect(`etcd://127.0.0.1:${server.port}`);
    const outer = tracer.start('outer');
    await tracer.within(outer, () => hf.engine.range({ key: utf8('a') }));
    expect(spans.named('etcdserverpb.KV/Range').at(-1)?.parentSpanContext).toBeUndefined();
    outer.end();
    await hf.close();
  });

  test('goes on from traceparent of the JSON gateway', async () => {
    const server = await serving(true);
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
    const body = JSON.stringify({ key: 'YQ==' });
    await fetch(`${server.url}/v3/kv/range`, { method: 'POST', headers, body });
    const span = only('etcdserverpb.KV/Range');
    expect(traceOf(span)).toBe(traceId);
    expect(span.parentSpanContext?.spanId).toBe('b7ad6b7169203331');
    await fetch(`${server.url}/v3/kv/range`, {
      method: 'POST',
      headers: { traceparent: 'nonsense' },
      body,
    });
    const [, second] = spans.named('etcdserverpb.KV/Range');
    expect(second?.parentSpanContext).toBeUndefined();
  });

  test('says of a refused call what it was refused with', async () => {
    const server = await serving(true);
    const client = new GrpcClient({ port: server.port });
    closing.push(async () => client.destroy());
    await expect(client.unary(KVService.Range, { key: utf8('') })).rejects.toThrow('key');
    const span = only('etcdserverpb.KV/Range');
    expect(span.attributes['rpc.grpc.status_code']).toBe(3);
    expect(span.status.code).toBe(SpanStatusCode.ERROR);
  });

  test('makes one span of a stream, which ends with it', async () => {
    const server = await serving(true);
    const client = new GrpcClient({ port: server.port });
    closing.push(async () => client.destroy());
    const watch = client.stream(WatchService.Watch);
    watch.send({ createRequest: { key: utf8('a') } });
    // An iteration that is left would end the call.
    await watch.responses()[Symbol.asyncIterator]().next();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(spans.named('etcdserverpb.Watch/Watch')).toEqual([]);
    client.destroy();
    await eventually(() => spans.named('etcdserverpb.Watch/Watch').length === 1, 'its end');
  });
});

test('a guard makes a span of each check, with the mark that refused', async () => {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-spans-'));
  const guard = await FencedDirectory.open(path, { tracer });
  try {
    await guard.write(34n, 'a', 'new');
    const error = await guard.write(33n, 'a', 'old').catch((caught: unknown) => caught);
    expect(HoldfastError.is(error, 'stale')).toBe(true);
    await guard.write('nonsense', 'a', 'x').catch(() => {});
    const [admitted, refused, invalid] = spans.named('holdfast.guard.check');
    expect(admitted?.attributes).toMatchObject({
      'holdfast.guard': 'file',
      'holdfast.token': '34',
      'holdfast.result': 'admitted',
    });
    expect(refused?.attributes).toMatchObject({
      'holdfast.token': '33',
      'holdfast.mark': '34',
      'holdfast.result': 'stale',
    });
    expect(refused?.status.code).toBe(SpanStatusCode.ERROR);
    expect(invalid?.attributes['holdfast.result']).toBe('token-invalid');
  } finally {
    await guard.close();
    rmSync(path, { recursive: true, force: true });
  }
});
