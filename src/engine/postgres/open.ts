/**
 * Opens the engine: on a database URL with the user's own `pg`, or on a pool, a postgres.js `sql` or
 * a PGlite that the user already has.
 */
import { type Clock, sleep } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { systemClock, systemRandom } from '../../base/system.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Engine } from '../contract.ts';
import {
  type Driver,
  type PGliteLike,
  type PgPool,
  type PostgresJs,
  pgDriver,
  pgliteDriver,
  postgresJsDriver,
} from './driver.ts';
import { PostgresEngine } from './engine.ts';
import { Exchange } from './exchange.ts';
import { ExchangeError } from './faults.ts';
import {
  checkSchema,
  FORMAT,
  formatQuery,
  KEY_BYTES_MAX,
  migration,
  presenceQuery,
} from './schema.ts';

export interface PostgresOptions {
  /** Where the tables stand; made if missing. @default 'holdfast' */
  readonly schema?: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Every call ends within this. @default 10,000 */
  readonly callTimeoutMs?: number;
  /** How often watches look for news where notifications cannot be had. @default 50 */
  readonly pollMs?: number;
  /** Shorter leases are raised to this. @default 100 */
  readonly leaseTtlMsMin?: number;
  /** Revisions of history kept. @default 100,000; 0: keep all until told to compact */
  readonly retainRevisions?: number;
  /** How often a quiet watch that asked for progress hears of it. @default 10 minutes */
  readonly progressIntervalMs?: number;
  /** Keys and values of one request. @default 1.5 MiB */
  readonly requestBytesMax?: number;
  /** Operations in one transaction. @default 128 */
  readonly operationsMax?: number;
  /** Serve although the server runs with `fsync` off and can lose what it acknowledged. */
  readonly allowUnsafe?: boolean;
}

/** Exactly one of `pool`, `sql` and `pglite`. */
export interface PostgresConnection {
  /** A `pg` pool; behind a pooler in transaction mode too. */
  readonly pool?: PgPool;
  /** A postgres.js `sql`. */
  readonly sql?: PostgresJs;
  readonly pglite?: PGliteLike;
  /**
   * A way to the server itself, past any pooler, for wake-up by notification: a `pg` pool, or
   * `true` if the given pool or `sql` is one. Without it watches poll.
   */
  readonly direct?: PgPool | boolean;
}

export interface PostgresUrlOptions extends PostgresOptions {
  /** `true`: the URL leads to the server itself, not to a pooler; or the URL that does. */
  readonly direct?: boolean | string;
  /** Connections of the pool that is made. @default 6 */
  readonly connections?: number;
}

export async function openPostgresEngine(
  options: PostgresOptions & PostgresConnection,
): Promise<Engine> {
  return openOn(driverOf(options), options);
}

/** What `postgres://…` opens. Wants `pg` to be installed where the program is. */
export async function open(url: string, options: PostgresUrlOptions = {}): Promise<Engine> {
  const { Pool } = await loadPg();
  const { direct, connections = 6, callTimeoutMs = 10_000 } = options;
  const made = (connectionString: string, max: number): PgPool =>
    new Pool({
      ...{ connectionString, max, connectionTimeoutMillis: Math.ceil(callTimeoutMs / 2) },
      ...{ allowExitOnIdle: true, keepAlive: true, application_name: 'holdfast' },
    });
  const pool = made(url, connections);
  const listener = direct === true ? made(url, 1) : direct ? made(direct, 1) : undefined;
  const driver = pgDriver(pool, { direct: listener, owned: true });
  try {
    return await openOn(driver, options);
  } catch (error) {
    await driver.close().catch(() => {});
    throw error;
  }
}

function driverOf({ pool, sql, pglite, direct }: PostgresConnection): Driver {
  const given = [pool, sql, pglite].filter((each) => each !== undefined);
  if (given.length !== 1) {
    throw new HoldfastError('invalid-argument', 'give exactly one of pool, sql and pglite');
  }
  if (pool) return pgDriver(pool, { direct: direct === true ? pool : direct || undefined });
  if (sql) return postgresJsDriver(sql, { direct: direct === true });
  return pgliteDriver(pglite!);
}

async function openOn(driver: Driver, options: PostgresOptions): Promise<Engine> {
  const { clock = systemClock, random = systemRandom, callTimeoutMs = 10_000 } = options;
  const schema = checkSchema(options.schema ?? 'holdfast');
  // Two attempts fit into a call: one that hangs, and one that answers.
  const attemptMs = Math.max(100, callTimeoutMs / 2);
  const exchange = new Exchange({ driver, schema, clock, attemptMs });
  const endMs = clock.now() + callTimeoutMs;
  for (;;) {
    try {
      await requireFsync(exchange, options.allowUnsafe === true);
      await migrate(exchange, schema, random);
      // The first look fixes which history this client believes in.
      await exchange.ask('read', { items: [] });
      break;
    } catch (error) {
      if (!(error instanceof ExchangeError)) throw error;
      if (!error.fault.retry || clock.now() >= endMs) throw error.told(error.fault.maybe);
      await sleep(clock, 50 + 50 * random.next());
    }
  }
  return new PostgresEngine({
    ...{ driver, exchange, schema, clock, random, callTimeoutMs },
    pollMs: options.pollMs ?? 50,
    retainRevisions: options.retainRevisions ?? 100_000,
    progressIntervalMs: options.progressIntervalMs ?? 600_000,
    capabilities: {
      ...{ name: 'postgres', durable: true, shared: true },
      leaseTtlMsMin: options.leaseTtlMsMin ?? 100,
      leaseTtlMsStep: 1,
      keyBytesMax: KEY_BYTES_MAX,
      requestBytesMax: options.requestBytesMax ?? 1.5 * 2 ** 20,
      operationsMax: options.operationsMax ?? 128,
    },
  });
}

/** A migration is left more time than a call: it runs once, and half of it is nothing. */
const MIGRATION_MS_MAX = 60_000;

async function requireFsync(exchange: Exchange, allowUnsafe: boolean): Promise<void> {
  const setting = await exchange.run(`select current_setting('fsync') as result`);
  if (setting === 'on' || allowUnsafe) return;
  throw new HoldfastError(
    'filesystem-unsuitable',
    'this PostgreSQL runs with fsync off: after a power cut it forgets what it acknowledged, and ' +
      'tokens could be given out twice; turn fsync on, or open with allowUnsafe for a test',
  );
}

async function migrate(exchange: Exchange, schema: string, random: Random): Promise<void> {
  const present = await exchange.run(presenceQuery(schema));
  const format = present === 'true' ? Number(await exchange.run(formatQuery(schema))) : 0;
  if (format > FORMAT) {
    throw new HoldfastError(
      'store-too-new',
      `the schema ${schema} has format ${format}; this version knows ${FORMAT}: upgrade it`,
    );
  }
  if (format >= FORMAT) return;
  await exchange.run(migration(schema, identity(random)), undefined, MIGRATION_MS_MAX);
}

/** A positive number of 62 bits, so that it fits every integer it may meet. */
function identity(random: Random): bigint {
  let id = 0n;
  for (const byte of random.bytes(8)) id = id * 256n + BigInt(byte);
  return (id >> 2n) + 1n;
}

interface PgModule {
  readonly Pool: new (config: Readonly<Record<string, unknown>>) => PgPool;
}

async function loadPg(): Promise<PgModule> {
  // Not a literal, so that nobody's bundler takes it for a dependency of ours.
  const name: string = 'pg';
  try {
    const module = (await import(name)) as PgModule & { readonly default?: PgModule };
    return module.default ?? module;
  } catch (cause) {
    throw new HoldfastError(
      'unsupported',
      'postgres:// needs the package "pg": install it beside holdfast (npm install pg)',
      { cause },
    );
  }
}
