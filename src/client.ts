/**
 * The front door: `connect` picks an engine by URL, and the client makes recipes on it.
 *
 * Engines are loaded when they are asked for, so nobody pays for what he does not use. Sessions
 * are made when a recipe first needs one; a lost session is replaced with the next call, and what
 * is acquired then has a new, higher token.
 */
import { hostname } from 'node:os';
import type { Bytes } from './base/bytes.ts';
import type { Clock } from './base/clock.ts';
import type { Random } from './base/random.ts';
import { systemClock, systemRandom } from './base/system.ts';
import type { Tracer } from './base/tracer.ts';
import type { Engine } from './engine/contract.ts';
import { HoldfastError } from './model/errors.ts';
import type { Token } from './model/token.ts';
import type { Authority, Identity } from './recipes/authority.ts';
import { Barrier, DoubleBarrier } from './recipes/barrier.ts';
import { Counter, Sequence, type SequenceOptions } from './recipes/counter.ts';
import { type Cycle, findCycles } from './recipes/deadlock.ts';
import { type Duration, milliseconds } from './recipes/duration.ts';
import { Election } from './recipes/election.ts';
import { Group } from './recipes/group.ts';
import { Latch } from './recipes/latch.ts';
import { Lock, type LockOptions } from './recipes/lock.ts';
import { MultiLock } from './recipes/multi-lock.ts';
import { Observation, type Observer } from './recipes/observation.ts';
import {
  ObservedElection,
  ObservedLock,
  ObservedMultiLock,
  ObservedReadWriteLock,
  ObservedSemaphore,
} from './recipes/observed.ts';
import { Once } from './recipes/once.ts';
import { ReadWriteLock } from './recipes/read-write-lock.ts';
import { Semaphore } from './recipes/semaphore.ts';
import { type DeadlineGuard, type HealthGate, Session } from './recipes/session.ts';
import { reportStale, type StaleReport } from './recipes/stale.ts';
import { Cell, type Transaction, type TransactOptions, transact } from './recipes/transact.ts';
import { View } from './recipes/view.ts';
import type { WatchdogOptions } from './recipes/watchdog.ts';

export interface ClientOptions {
  /** TTL of the default session. Default 10 s. */
  readonly ttl?: Duration;
  /** Largest difference in speed between clocks, as a fraction. Default 0.05. */
  readonly drift?: number;
  /** Goes before every name, to keep applications on one authority apart. Default none. */
  readonly namespace?: string;
  /** How others see this holder. Default `host:pid`. */
  readonly holder?: string;
  /** Renew only while the process is healthy. */
  readonly health?: HealthGate;
  /** End the process at the deadline if its event loop stands still. */
  readonly watchdog?: boolean | WatchdogOptions;
  /** Makes spans of what is acquired and held; see `holdfast/opentelemetry`. */
  readonly tracer?: Tracer;
  /** Hears of everything that is acquired, renewed and released; see `holdfast/metrics`. */
  readonly observer?: Observer;
  /** Options of the engine that the URL names. */
  readonly engine?: Readonly<Record<string, unknown>>;
  readonly clock?: Clock;
  readonly random?: Random;
}

const TTL_MS_DEFAULT = 10_000;

interface EngineModule {
  open(url: string, options: Readonly<Record<string, unknown>>): Promise<Engine>;
}

const ENGINES: Readonly<Record<string, () => Promise<unknown>>> = {
  memory: () => import('./engine/memory/open.ts'),
  lmdb: () => import('./shared/open.ts'),
  etcd: () => import('./engine/etcd/open.ts'),
  etcds: () => import('./engine/etcd/open.ts'),
  postgres: () => import('./engine/postgres/open.ts'),
  postgresql: () => import('./engine/postgres/open.ts'),
};

/** Opens what a URL names: `memory:`, `lmdb:./path`, `etcd://a:2379,b:2379`, `postgres://…`. */
export async function openEngine(
  url: string,
  options: Readonly<Record<string, unknown>> = {},
): Promise<Engine> {
  const scheme = /^([a-z]+):/.exec(url)?.[1] ?? '';
  const engine = ENGINES[scheme];
  if (!engine) {
    throw new HoldfastError(
      'invalid-argument',
      `no engine for ${JSON.stringify(url)}; known are ${Object.keys(ENGINES).join(', ')}`,
    );
  }
  return await ((await engine()) as EngineModule).open(url, options);
}

/** A client on the engine that the URL names, or on one that is already open. */
export async function connect(
  target: string | Engine,
  options: ClientOptions = {},
): Promise<Client> {
  const { clock = systemClock, random = systemRandom, tracer } = options;
  const engine =
    typeof target === 'string'
      ? await openEngine(target, { clock, random, ...(tracer && { tracer }), ...options.engine })
      : target;
  return new Client(engine, options, typeof target === 'string');
}

export interface ClientStats {
  /** Live sessions. */
  readonly sessions: number;
  /** Keys held on them: one for a lock, several for several at once. */
  readonly holdings: number;
}

export class Client implements AsyncDisposable {
  /** The engine, for what no recipe covers. */
  readonly engine: Engine;
  readonly identity: Identity;
  readonly #authority: Authority;
  /** Absent where nobody wants to know. */
  readonly #observation: Observation | undefined;
  readonly #options: ClientOptions;
  readonly #ownsEngine: boolean;
  /** By TTL; made when first needed. */
  readonly #pool = new Map<number, Promise<Session>>();
  /** Those of the pool that have been opened, for whoever need not wait. */
  readonly #opened = new Map<number, Session>();
  readonly #sessions = new Set<Session>();
  readonly #watchdogs = new Set<DeadlineGuard>();
  #closing: Promise<void> | undefined;

  constructor(engine: Engine, options: ClientOptions, ownsEngine: boolean) {
    const { clock = systemClock, random = systemRandom, namespace = '' } = options;
    this.engine = engine;
    this.#options = options;
    this.#ownsEngine = ownsEngine;
    this.#authority = { engine, clock, random, namespace };
    const { tracer, observer } = options;
    if (tracer || observer) {
      const backend = engine.capabilities.name;
      this.#observation = new Observation({ clock, backend, tracer, observer });
    }
    const host = hostname();
    this.identity = { holder: options.holder ?? `${host}:${process.pid}`, host, pid: process.pid };
  }

  /** First come, first served. */
  lock(name: string, options: LockOptions = {}): Lock {
    const observation = this.#observation;
    if (!observation) return new Lock(name, this.#source, options);
    return new ObservedLock(observation, name, { sessions: this.#source, options });
  }

  election(name: string): Election {
    const observation = this.#observation;
    if (!observation) return new Election(name, this.#source);
    return new ObservedElection(observation, name, this.#source);
  }

  /** Many readers or one writer. */
  readWriteLock(name: string): ReadWriteLock {
    const observation = this.#observation;
    if (!observation) return new ReadWriteLock(name, this.#source);
    return new ObservedReadWriteLock(observation, name, this.#source);
  }

  /** At most `permits` holders at once. */
  semaphore(name: string, permits: number): Semaphore {
    const observation = this.#observation;
    if (!observation) return new Semaphore(name, permits, this.#source);
    return new ObservedSemaphore(observation, name, { permits, sessions: this.#source });
  }

  /** Several locks at once, all or nothing. */
  locks(names: readonly string[]): MultiLock {
    const observation = this.#observation;
    if (!observation) return new MultiLock(names, this.#source);
    return new ObservedMultiLock(observation, names, this.#source);
  }

  /** A gate that one closes and opens for all. */
  barrier(name: string): Barrier {
    return new Barrier(name, this.#authority, this.#source);
  }

  /** `count` participants enter together and leave together. */
  doubleBarrier(name: string, count: number): DoubleBarrier {
    return new DoubleBarrier(name, count, this.#authority, this.#source);
  }

  /** Opens when it has been counted down to zero. */
  latch(name: string): Latch {
    return new Latch(name, this.#authority, this.#source);
  }

  counter(name: string): Counter {
    return new Counter(name, this.#authority, this.#source);
  }

  /** Unique numbers; keep the sequence, its block is in it. */
  sequence(name: string, options: SequenceOptions = {}): Sequence {
    return new Sequence(this.counter(name), options);
  }

  /** Who is there, and who comes and goes. */
  group(name: string): Group {
    return new Group(name, this.#authority, this.#source);
  }

  /** A unique claim that stays. */
  once(name: string): Once {
    return new Once(name, this.#authority, this.#source);
  }

  /** A local copy of the keys below a prefix. Close it. */
  view(prefix: string | Bytes): View {
    return new View(prefix, this.#authority);
  }

  /** One key with compare-and-set; the key is taken as it is, below the namespace. */
  cell(key: string): Cell {
    return new Cell(this.#authority.namespace + key, this.#source);
  }

  /** Reads and writes keys as one step, once; see `Transaction`. Keys are taken as they are. */
  async transact<T>(
    work: (transaction: Transaction) => T | Promise<T>,
    options: TransactOptions = {},
  ): Promise<T> {
    return await transact(await this.session(), work, options);
  }

  /** The shared session with this TTL (default: the client's), made anew after a loss. */
  async session(ttl?: Duration): Promise<Session> {
    return await this.#source(ttl);
  }

  /** The same, without a wait where the session stands. */
  readonly #source = (ttl?: Duration): Session | Promise<Session> => {
    const ttlMs = milliseconds(ttl ?? this.#options.ttl ?? TTL_MS_DEFAULT, 'ttl');
    const session = this.#opened.get(ttlMs);
    return session?.alive && !this.#closing ? session : this.#open(ttlMs);
  };

  async #open(ttlMs: number): Promise<Session> {
    this.#ensureOpen();
    const present = this.#pool.get(ttlMs);
    const session = await present?.catch(() => undefined);
    if (session?.alive) return session;
    if (this.#pool.get(ttlMs) !== present) return await this.#open(ttlMs);
    const opening = this.openSession(ttlMs);
    this.#pool.set(ttlMs, opening);
    opening.then(
      (opened) => this.#opened.set(ttlMs, opened),
      () => this.#pool.get(ttlMs) === opening && this.#pool.delete(ttlMs),
    );
    return await opening;
  }

  /** A session of one's own, beside the shared ones. It ends with `close` or with the client. */
  async openSession(ttl?: Duration): Promise<Session> {
    this.#ensureOpen();
    const { drift, health, watchdog } = this.#options;
    const guard = watchdog ? await this.#startWatchdog(watchdog) : undefined;
    const session = await Session.open(this.#authority, {
      ttl: ttl ?? this.#options.ttl,
      drift,
      health,
      identity: this.identity,
      watchdog: guard,
    });
    this.#sessions.add(session);
    session.onLoss(() => this.#sessions.delete(session));
    if (this.#closing) await session.close();
    return session;
  }

  /** Where the client stands. */
  stats(): ClientStats {
    const sessions = [...this.#sessions].filter((session) => session.alive);
    const holdings = sessions.reduce((sum, session) => sum + session.holdings, 0);
    return { sessions: sessions.length, holdings };
  }

  /** Cycles of owners that wait for each other, over all locks of the namespace. */
  deadlocks(): Promise<Cycle[]> {
    return findCycles(this.#authority);
  }

  /** A guard refused a fresh grant with this mark; see `Grant.reportStale`. */
  reportStale(mark: Token): Promise<StaleReport> {
    return reportStale(this.#authority, mark, this.identity);
  }

  /** Releases everything, ends the sessions, and closes the engine if `connect` opened it. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#pool.values());
    await Promise.allSettled([...this.#sessions].map((session) => session.close()));
    await Promise.allSettled([...this.#watchdogs].map((watchdog) => watchdog.close()));
    if (this.#ownsEngine) await this.engine.close();
  }

  #ensureOpen(): void {
    if (this.#closing) throw new HoldfastError('closed', 'the client has been closed');
  }

  async #startWatchdog(watchdog: true | WatchdogOptions): Promise<DeadlineGuard> {
    const { startWatchdog } = await import('./recipes/watchdog.ts');
    const guard = await startWatchdog(watchdog === true ? {} : watchdog);
    this.#watchdogs.add(guard);
    return guard;
  }
}
