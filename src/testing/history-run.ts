/**
 * Runs one history on an engine and on the model side by side and throws at the first difference.
 *
 * Time stands still except where the history moves it. A millisecond passes after each step, so
 * no two leases end at the same moment and their order is no matter of taste.
 */
import { compareBytes, utf8 } from '../base/bytes.ts';
import type { Engine } from '../engine/contract.ts';
import { HoldfastError } from '../model/errors.ts';
import type {
  Operation,
  OperationResult,
  RangeOperationResult,
  RangeRequest,
  Revision,
  TxnRequest,
} from '../model/transaction.ts';
import type { Event, WatchRequest } from '../model/watch.ts';
import { expectEqual, fail, show } from './conformance/expect.ts';
import type { Fixture } from './conformance/suite.ts';
import { Follower } from './follower.ts';
import { Resolver, type Step, type WatchStep } from './history-steps.ts';
import { acceptsRange, Model, Refusal, sameKv } from './model.ts';
import { validateWatch } from './validators.ts';
import { eventually, PATIENCE_MS } from './waiting.ts';

interface OpenWatch {
  readonly follower: Follower;
  readonly start: Revision;
}

/** Without a clock to move, leases are made to outlive the history. */
const LONG_TTL_MS = 3_600_000;

export async function runHistory(fixture: Fixture, steps: readonly Step[]): Promise<void> {
  const { header } = await fixture.engine.range({ key: fixture.prefix });
  const run = new HistoryRun(fixture, header.revision);
  try {
    for (const [index, step] of steps.entries()) {
      try {
        await run.step(step);
      } catch (error) {
        const what = error instanceof Error ? error.message : String(error);
        throw new Error(`step ${index}, ${show(step)}: ${what}`, { cause: error });
      }
    }
    await run.finish();
  } finally {
    await run.dispose();
  }
}

class HistoryRun {
  readonly #fixture: Fixture;
  readonly #model: Model;
  readonly #resolve: Resolver;
  readonly #patienceMs: number;
  readonly #watches: OpenWatch[] = [];
  #engine: Engine;

  constructor(fixture: Fixture, revision: Revision) {
    this.#fixture = fixture;
    this.#engine = fixture.engine;
    const { operationsMax } = fixture.engine.capabilities;
    this.#model = new Model({ revision, operationsMax });
    this.#resolve = new Resolver(fixture.prefix, this.#model);
    this.#patienceMs = fixture.patienceMs ?? PATIENCE_MS;
  }

  async step(step: Step): Promise<void> {
    await this.#perform(step);
    await this.#advance(1);
  }

  async finish(): Promise<void> {
    await this.#drain();
    const all = { type: 'range', ...this.#resolve.everything() } as const;
    await this.#range(all);
    for (const id of this.#model.leases.map((lease) => lease.id)) await this.#leaseInfo(id);
  }

  async dispose(): Promise<void> {
    for (const { follower } of this.#watches) await follower.close();
    for (const id of this.#resolve.leases) await this.#engine.revokeLease(id).catch(() => {});
  }

  async #perform(step: Step): Promise<void> {
    switch (step.type) {
      case 'range':
        return this.#range(this.#resolve.read(step));
      case 'txn':
        return this.#txn(this.#resolve.txn(step));
      case 'burst':
        return this.#burst(step.puts.map((put) => this.#resolve.put(put)));
      case 'grant':
        return this.#grant(step.ttlMs, step.again);
      case 'keepAlive':
        return this.#keepAlive(this.#resolve.someLease(step.lease));
      case 'revoke':
        return this.#revoke(this.#resolve.someLease(step.lease));
      case 'leaseInfo':
        return this.#leaseInfo(this.#resolve.someLease(step.lease));
      case 'advance':
        return this.#advance(step.ms);
      case 'watch':
        return this.#watch(step);
      case 'progress':
        return this.#watches[step.watch % this.#watches.length]?.follower.requestProgress();
      case 'unwatch':
        return this.#unwatch(step.watch);
      case 'drain':
        return this.#drain();
      case 'compact':
        return this.#compact(step.back, step.physical);
      case 'reopen':
        return this.#reopen();
    }
  }

  async #range(request: RangeRequest & { type: 'range' }): Promise<void> {
    const [actual, expected] = await this.#both(
      () => this.#engine.range(request),
      () => this.#model.range(request),
    );
    if (!actual || !expected) return;
    this.#expectRevision(actual.header.revision);
    this.#expectResults([request], [{ type: 'range', ...actual }], [expected]);
  }

  async #txn(request: TxnRequest): Promise<void> {
    const [actual, expected] = await this.#both(
      () => this.#engine.txn(request),
      () => this.#model.txn(request),
    );
    if (!actual || !expected) return;
    this.#expectRevision(actual.header.revision);
    expectEqual(actual.succeeded, expected.succeeded, 'succeeded');
    const branch = (expected.succeeded ? request.success : request.failure) ?? [];
    this.#expectResults(branch, actual.results, expected.results);
  }

  /** The engine chooses the order; its revisions say which, and the model follows. */
  async #burst(puts: readonly Operation[]): Promise<void> {
    const ends = await Promise.allSettled(puts.map((put) => this.#engine.txn({ success: [put] })));
    const answered = ends.flatMap((end, i) =>
      end.status === 'fulfilled' ? [{ put: puts[i]!, answer: end.value }] : [],
    );
    answered.sort((a, b) => a.answer.header.revision - b.answer.header.revision);
    for (const { put, answer } of answered) {
      const expected = this.#model.txn({ success: [put] });
      this.#expectRevision(answer.header.revision);
      this.#expectResults([put], answer.results, expected.results);
    }
    for (const [i, end] of ends.entries()) {
      if (end.status === 'fulfilled') continue;
      const [, refused] = await this.#both(
        () => Promise.reject(end.reason),
        () => this.#model.txn({ success: [puts[i]!] }),
      );
      if (refused) fail('a put of a burst was refused for no reason');
    }
  }

  async #grant(ttlMs: number, again: boolean): Promise<void> {
    const id = again ? this.#resolve.leases.at(-1) : undefined;
    const wanted = this.#fixture.clock ? ttlMs : LONG_TTL_MS;
    const [grant] = await this.#both(
      () => this.#engine.grantLease(id === undefined ? { ttlMs: wanted } : { ttlMs: wanted, id }),
      (answer) => {
        if (!answer && id === undefined) throw new Refusal();
        this.#model.grant(answer?.id ?? id ?? 0n, answer?.ttlMs ?? wanted, this.#now);
      },
    );
    if (!grant) return;
    this.#expectRevision(grant.header.revision);
    if (id !== undefined) expectEqual(grant.id, id, 'the id of the lease');
    if (grant.ttlMs < wanted) fail(`a TTL of ${wanted} ms was granted as ${grant.ttlMs}`);
    this.#resolve.leases.push(grant.id);
  }

  async #keepAlive(id: bigint): Promise<void> {
    const [renewal, ttlMs] = await this.#both(
      () => this.#engine.keepAlive(id),
      () => this.#model.keepAlive(id, this.#now),
    );
    if (renewal) expectEqual([renewal.id, renewal.ttlMs], [id, ttlMs], 'the renewal');
  }

  async #revoke(id: bigint): Promise<void> {
    const [header] = await this.#both(
      () => this.#engine.revokeLease(id),
      () => this.#model.revoke(id),
    );
    if (header) this.#expectRevision(header.revision);
  }

  async #leaseInfo(id: bigint): Promise<void> {
    const [info, lease] = await this.#both(
      () => this.#engine.leaseInfo(id, { keys: true }),
      () => this.#model.leases.find((one) => one.id === id) ?? refuse(),
    );
    if (!info || !lease) return;
    expectEqual(info.grantedTtlMs, lease.ttlMs, 'the TTL granted');
    const keys = this.#model.keysOf(id).map((kv) => kv.key);
    expectEqual(info.keys, keys, 'the keys of the lease');
    if (!this.#fixture.clock) return;
    expectEqual(info.remainingTtlMs, lease.deadlineMs - this.#now, 'the time left');
  }

  /** Goes from one end of a lease to the next, so that their order is certain. */
  async #advance(ms: number): Promise<void> {
    const { clock } = this.#fixture;
    if (!clock) return;
    const target = clock.now() + ms;
    for (;;) {
      const next = Math.min(...this.#model.leases.map((lease) => lease.deadlineMs));
      if (next > target) break;
      clock.advanceTo(next);
      const ended = this.#model.expire(clock.now());
      for (const id of ended) await this.#settle(id);
    }
    clock.advanceTo(target);
  }

  async #settle(id: bigint): Promise<void> {
    const gone = async (): Promise<boolean> => {
      this.#fixture.clock?.advance(0);
      const { header } = await this.#engine.range(this.#resolve.everything());
      if (header.revision < this.#model.revision) return false;
      return this.#engine.leaseInfo(id).then(
        () => false,
        (error: unknown) => HoldfastError.is(error, 'lease-not-found'),
      );
    };
    await eventually(gone, `lease ${id.toString(16)} to end`, this.#patienceMs);
    const { header } = await this.#engine.range(this.#resolve.everything());
    this.#expectRevision(header.revision);
  }

  async #watch(step: WatchStep): Promise<void> {
    const { prevKv, noPut, noDelete, back } = step;
    const startRevision = back === undefined ? 0 : this.#resolve.revision(back);
    const range = this.#resolve.range(step);
    const request: WatchRequest = { ...range, startRevision, prevKv, noPut, noDelete };
    const follower = new Follower(this.#engine.watch(request), request, this.#patienceMs);
    const start = startRevision || this.#model.revision + 1;
    if (this.#isEmpty(request)) {
      expectEqual((await follower.failure()).code, 'invalid-argument', 'an empty watch');
    } else if (start < this.#model.compactRevision) {
      const error = await follower.failure();
      expectEqual(error.code, 'compacted', `a watch from ${start}`);
      expectEqual(error.details.compactRevision, this.#model.compactRevision);
    } else {
      await follower.created();
      this.#watches.push({ follower, start });
    }
  }

  #isEmpty({ key, end }: WatchRequest): boolean {
    return end !== undefined && compareBytes(key, end) >= 0;
  }

  async #unwatch(index: number): Promise<void> {
    if (this.#watches.length === 0) return;
    const [watch] = this.#watches.splice(index % this.#watches.length, 1);
    await this.#expectTold(watch!);
    await watch!.follower.close();
    await watch!.follower.finished();
  }

  async #drain(): Promise<void> {
    for (const watch of this.#watches) await this.#expectTold(watch);
  }

  async #expectTold({ follower, start }: OpenWatch): Promise<void> {
    const expected = this.#model.events(follower.request, start);
    const enough = (): boolean => follower.events.length >= expected.length || follower.ended;
    await eventually(
      enough,
      `${expected.length} events, ${follower.events.length} came`,
      this.#patienceMs,
    );
    if (follower.ended) throw follower.error;
    const { events } = follower;
    for (let i = 0; i < Math.max(events.length, expected.length); i++) {
      if (!this.#sameEvent(events[i], expected[i])) {
        fail(`event ${i} of a watch: expected ${show(expected[i])}, got ${show(events[i])}`);
      }
    }
    const record = {
      request: { ...follower.request, startRevision: start },
      batches: follower.batches,
    };
    expectEqual(validateWatch(record, this.#model.changes), [], 'the rules a watch breaks');
  }

  /** The version before an event may be absent once it is compacted, and only then. */
  #sameEvent(actual: Event | undefined, expected: Event | undefined): boolean {
    if (!actual || !expected) return false;
    if (actual.type !== expected.type || !sameKv(actual.kv, expected.kv)) return false;
    const [before, due] = [actual.prevKv, expected.prevKv];
    if (before && due) return sameKv(before, due);
    return !before && (!due || expected.kv.modRevision - 1 < this.#model.compactRevision);
  }

  async #compact(back: number, physical: boolean): Promise<void> {
    await this.#drain();
    const revision = this.#resolve.revision(back);
    const [header] = await this.#both(
      () => this.#engine.compact(revision, { physical }),
      () => this.#model.compact(revision),
    );
    if (header) this.#expectRevision(header.revision);
  }

  /** What a restart gives a lease lies within bounds; a renewal makes it certain again. */
  async #reopen(): Promise<void> {
    if (!this.#fixture.reopen) return;
    await this.#drain();
    for (const { follower } of this.#watches.splice(0)) await follower.close();
    this.#engine = await this.#fixture.reopen();
    for (const { id } of [...this.#model.leases]) {
      await this.#keepAlive(id);
      this.#fixture.clock?.advance(1);
    }
  }

  get #now(): number {
    return this.#fixture.clock?.now() ?? 0;
  }

  #expectRevision(actual: Revision): void {
    expectEqual(actual, this.#model.revision, 'the revision');
  }

  #expectResults(
    operations: readonly Operation[],
    actual: readonly OperationResult[],
    expected: readonly OperationResult[],
  ): void {
    expectEqual(actual.length, expected.length, 'the number of results');
    for (const [i, operation] of operations.entries()) {
      this.#expectResult(operation, actual[i]!, expected[i]!);
    }
  }

  #expectResult(operation: Operation, actual: OperationResult, expected: OperationResult): void {
    if (operation.type === 'range') {
      const [a, e] = [actual, expected] as [RangeOperationResult, RangeOperationResult];
      const uncut = this.#uncut(operation, e);
      if (acceptsRange(operation, a, e, uncut)) return;
      fail(`a range: expected ${show(e)}, got ${show(a)}`);
    }
    if (operation.type === 'txn' && actual.type === 'txn' && expected.type === 'txn') {
      expectEqual(actual.succeeded, expected.succeeded, 'succeeded of a nested transaction');
      const branch = (expected.succeeded ? operation.success : operation.failure) ?? [];
      this.#expectResults(branch, actual.results, expected.results);
      return;
    }
    expectEqual(actual, expected, `the result of a ${operation.type}`);
  }

  /** All pairs an answer may be made of: those of the state it shows, with their values. */
  #uncut(request: RangeRequest, expected: RangeOperationResult) {
    const known = this.#model.changes.filter(({ type }) => type === 'put').map(({ kv }) => kv);
    const shown = expected.kvs.map((kv) => known.find((one) => isVersion(one, kv))!);
    if (!expected.more) return shown;
    const { revision = 0 } = request;
    return [...shown, ...this.#model.state(revision > 0 ? revision : this.#model.revision)];
  }

  /** Both answers; when both refuse for a common reason, neither. */
  async #both<A, E>(
    ask: () => Promise<A>,
    expect: (answer: A | undefined) => E,
  ): Promise<readonly [A | undefined, E | undefined]> {
    const actual = await ask().then(
      (answer) => ({ answer }),
      (error: unknown) => ({ error }),
    );
    try {
      const expected = expect('answer' in actual ? actual.answer : undefined);
      if ('answer' in actual) return [actual.answer, expected];
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      if ('answer' in actual) fail(`expected ${refusal.message}, got ${show(actual.answer)}`);
      const codes = refusal.codes;
      if (HoldfastError.is(actual.error) && codes.includes(actual.error.code)) {
        expectEqual(actual.error.outcome, 'rejected', `the outcome of ${actual.error.code}`);
        return [undefined, undefined];
      }
      fail(`expected ${refusal.message}, got ${String(actual.error)}`);
    }
    throw 'error' in actual ? actual.error : new Error('there is neither answer nor error');
  }
}

function isVersion(a: { key: Uint8Array; modRevision: number }, b: typeof a): boolean {
  return a.modRevision === b.modRevision && compareBytes(a.key, b.key) === 0;
}

function refuse(): never {
  throw new Refusal('lease-not-found');
}

/** Only for stores whose every key is the test's: nothing else may take revisions meanwhile. */
export const HISTORY_PREFIX: Uint8Array = utf8('history/');
