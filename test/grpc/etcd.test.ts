/** Our gRPC client, messages and conversions against a real etcd. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { text, utf8 } from '../../src/base/bytes.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { TxnRequest } from '../../src/model/transaction.ts';
import {
  eventToModel,
  rangeResultToModel,
  rangeToWire,
  txnResultToModel,
  txnToWire,
  watchToWire,
} from '../../src/wire/messages/convert.ts';
import {
  KVService,
  LeaseService,
  MaintenanceService,
  WatchService,
} from '../../src/wire/messages/services.ts';
import { STATUS } from '../../src/wire/messages/status.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { installed } from '../servers/daemon.ts';
import { type Etcd, startEtcd } from '../servers/etcd.ts';

describe.skipIf(!installed('etcd'))('etcd (Debian)', () => {
  let etcd: Etcd;
  let client: GrpcClient;

  beforeAll(async () => {
    etcd = await startEtcd();
    client = new GrpcClient({ port: etcd.port, deadlineMs: 10_000 });
  });

  afterAll(async () => {
    client?.destroy();
    await etcd?.stop();
  });

  async function failure(work: Promise<unknown>): Promise<HoldfastError> {
    const error = await work.catch((e: unknown) => e);
    if (!HoldfastError.is(error)) throw new Error(`expected a HoldfastError, got ${String(error)}`);
    return error;
  }

  const range = async (key: string, options: { readonly revision?: number } = {}) =>
    rangeResultToModel(
      await client.unary(KVService.Range, rangeToWire({ key: utf8(key), ...options })),
    );
  const txn = async (request: TxnRequest) =>
    txnResultToModel(await client.unary(KVService.Txn, txnToWire(request)));

  test('puts, reads and deletes; revisions, versions and leases come back as they are', async () => {
    const lease = await client.unary(LeaseService.LeaseGrant, { TTL: 60 });
    expect(lease.ID).toBeGreaterThan(2n ** 53n);
    await client.unary(KVService.Put, { key: utf8('a'), value: utf8('1'), lease: lease.ID });
    const found = await range('a');
    expect(found.kvs[0]).toMatchObject({ version: 1, lease: lease.ID });
    expect(found.header).toEqual({ revision: found.kvs[0]!.modRevision, era: 0 });
    const gone = await client.unary(KVService.DeleteRange, { key: utf8('a'), prevKv: true });
    expect([gone.deleted, text(gone.prevKvs[0]!.value)]).toEqual([1, '1']);
    expect((await range('a')).count).toBe(0);
  });

  test('evaluates a transaction of every kind of compare and operation, nested too', async () => {
    await client.unary(KVService.Put, { key: utf8('t/1'), value: utf8('x') });
    const key = utf8('t/1');
    const { modRevision, createRevision } = (await range('t/1')).kvs[0]!;
    const result = await txn({
      compare: [
        { key, target: 'version', result: '=', value: 1 },
        { key, target: 'create', result: '=', value: createRevision },
        { key, target: 'mod', result: '<', value: modRevision + 1 },
        { key, target: 'value', result: '!=', value: utf8('y') },
        { key: utf8('t/'), end: utf8('t0'), target: 'lease', result: '=', value: 0n },
        { key: utf8('t/none'), target: 'create', result: '=', value: 0 },
      ],
      success: [
        { type: 'put', key: utf8('t/2'), value: utf8('z') },
        {
          type: 'range',
          key: utf8('t/'),
          end: utf8('t0'),
          sortTarget: 'key',
          sortOrder: 'descend',
        },
        { type: 'delete', key: utf8('t/1'), prevKv: true },
        { type: 'txn', failure: [], success: [{ type: 'range', key: utf8('t/2') }] },
      ],
    });
    expect(result.succeeded).toBe(true);
    const [put, read, deleted, nested] = result.results;
    expect(put).toMatchObject({ type: 'put', prevKv: undefined });
    expect(read?.type === 'range' && read.kvs.map((kv) => text(kv.key))).toEqual(['t/2', 't/1']);
    expect(deleted).toMatchObject({ type: 'delete', deleted: 1 });
    expect(nested).toMatchObject({ type: 'txn', succeeded: true, results: [{ count: 1 }] });
  });

  test('tells errors that become ours, in the words and codes of our table', async () => {
    const revision = (await range('a')).header.revision;
    await client.unary(KVService.Compact, { revision });
    const put = (more: object) => client.unary(KVService.Put, { key: utf8('k'), ...more });
    const cases = [
      [put({ key: utf8('') }), 'emptyKey'],
      [put({ lease: 77n }), 'leaseNotFound'],
      [put({ ignoreValue: true, value: utf8('v') }), 'valueProvided'],
      [put({ key: utf8('none'), ignoreLease: true }), 'keyNotFound'],
      [range('a', { revision: revision - 1 }), 'compacted'],
      [range('a', { revision: revision + 1_000 }), 'futureRevision'],
      [client.unary(LeaseService.LeaseRevoke, { ID: 5n }), 'leaseNotFound'],
      [client.unary(LeaseService.LeaseGrant, { TTL: Number.MAX_SAFE_INTEGER }), 'leaseTtlTooLarge'],
      [put({ value: new Uint8Array(1_600_000) }), 'requestTooLarge'],
      [
        txn({
          success: [
            { type: 'put', key: utf8('d'), value: utf8('1') },
            { type: 'put', key: utf8('d'), value: utf8('2') },
          ],
        }),
        'duplicateKey',
      ],
    ] as const;
    const errors = await Promise.all(cases.map(([work]) => failure(work)));
    for (const [i, [, name]] of cases.entries()) {
      const error = errors[i]!;
      expect([error.code, error.message]).toEqual([STATUS[name].error, STATUS[name].message]);
      expect(error.outcome).toBe('rejected');
    }
  });

  test('renews a lease on a stream and says when it is gone', async () => {
    const { ID } = await client.unary(LeaseService.LeaseGrant, { TTL: 60 });
    const call = client.stream(LeaseService.LeaseKeepAlive);
    call.send({ ID });
    call.send({ ID: 4n });
    const ttls: number[] = [];
    for await (const answer of call.responses()) {
      ttls.push(answer.TTL);
      if (ttls.length === 2) break;
    }
    expect(ttls).toEqual([60, 0]);
  });

  test('tells a watch every change in order, puts and deletes', async () => {
    const call = client.stream(WatchService.Watch);
    call.send({ createRequest: watchToWire({ key: utf8('w/'), end: utf8('w0'), prevKv: true }) });
    const seen: string[] = [];
    for await (const answer of call.responses()) {
      if (answer.created) {
        await client.unary(KVService.Put, { key: utf8('w/1'), value: utf8('one') });
        await client.unary(KVService.DeleteRange, { key: utf8('w/1') });
      }
      for (const event of answer.events.map(eventToModel)) {
        seen.push(`${event.type} ${text(event.kv.key)} ${text(event.prevKv?.value ?? utf8('-'))}`);
      }
      if (seen.length === 2) break;
    }
    expect(seen).toEqual(['put w/1 -', 'delete w/1 one']);
  });

  test('answers its status and a snapshot', async () => {
    const status = await client.unary(MaintenanceService.Status, {}, { effect: 'read' });
    expect(status.version).toMatch(/^3\./);
    expect(status.leader).toBe(status.header!.memberId);
    const call = client.stream(MaintenanceService.Snapshot);
    call.send({});
    call.halfClose();
    let bytes = 0;
    for await (const { blob } of call.responses()) bytes += blob.length;
    expect(bytes).toBeGreaterThan(10_000);
  });

  test('a thousand puts in flight on one connection are all answered', async () => {
    const answers = await Promise.all(
      Array.from({ length: 1_000 }, (_, i) =>
        client.unary(KVService.Put, { key: utf8(`many/${i}`), value: utf8('v') }),
      ),
    );
    expect(new Set(answers.map((a) => a.header!.revision)).size).toBe(1_000);
  });
});
