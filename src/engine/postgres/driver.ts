/**
 * What the engine needs of a driver, and how `pg`, postgres.js and PGlite give it.
 *
 * A driver runs one message of plain SQL text: one round trip, one implicit transaction, no
 * parameters, no prepared statement, nothing left behind on the connection. That is what makes the
 * engine indifferent to a pooler in transaction mode. The drivers are taken as structural types;
 * the package depends on none of them.
 */
import { HoldfastError } from '../../model/errors.ts';

export interface Driver {
  readonly name: string;
  /**
   * Runs the message and answers the field `result` of its last row. When `signal` aborts, the
   * connection is given up, so that a dead one cannot be handed out again, and the call rejects.
   */
  run(sql: string, signal: AbortSignal): Promise<string | null>;
  /** Listens on a connection of its own; absent when notifications cannot be had. */
  listen?(channel: string, handlers: ListenHandlers): Promise<() => Promise<void>>;
  /** Ends the driver if the engine made it. */
  close(): Promise<void>;
}

export interface ListenHandlers {
  onNotify(payload: string): void;
  /** The connection is gone; nothing more will come. */
  onLost(): void;
}

/** The part of `pg`'s Pool that is used. */
export interface PgPool {
  connect(): Promise<PgClient>;
  end(): Promise<void>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'connect', listener: (client: PgClient) => void): unknown;
  // biome-ignore lint/suspicious/noExplicitAny: any listener that `on` took can be removed
  removeListener(event: string, listener: (...args: any[]) => void): unknown;
}

/** The part of `pg`'s pooled client that is used. */
export interface PgClient {
  query(sql: string): Promise<unknown>;
  release(destroy?: boolean | Error): void;
  on(event: 'error' | 'end', listener: () => void): unknown;
  on(event: 'notification', listener: (message: PgNotification) => void): unknown;
  // biome-ignore lint/suspicious/noExplicitAny: any listener that `on` took can be removed
  removeListener(event: string, listener: (...args: any[]) => void): unknown;
}

export interface PgNotification {
  readonly channel: string;
  readonly payload?: string | undefined;
}

/** The part of a postgres.js `sql` that is used. */
export interface PostgresJs {
  unsafe(sql: string): PromiseLike<unknown> & { cancel(): void };
  listen(
    channel: string,
    onNotify: (payload: string) => void,
    onListen?: () => void,
  ): PromiseLike<{ unlisten(): Promise<void> }>;
  end(options?: { readonly timeout?: number }): Promise<void>;
}

/** The part of PGlite that is used. */
export interface PGliteLike {
  exec(sql: string): Promise<readonly unknown[]>;
  listen(channel: string, onNotify: (payload: string) => void): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

interface ResultLike {
  readonly rows?: readonly { readonly result?: string | null }[];
}

/** The last row of the last statement that answered rows, in any of the drivers' shapes. */
function lastResult(answer: unknown): string | null {
  const results = Array.isArray(answer) ? answer : [answer];
  for (let i = results.length - 1; i >= 0; i--) {
    const item = results[i] as ResultLike | readonly unknown[] | undefined;
    const rows = Array.isArray(item) ? item : ((item as ResultLike | undefined)?.rows ?? [item]);
    const row = rows[rows.length - 1] as { readonly result?: unknown } | undefined;
    if (row && typeof row === 'object' && 'result' in row) {
      return row.result === null || row.result === undefined ? null : String(row.result);
    }
  }
  return null;
}

export interface PgDriverOptions {
  /** A pool without a pooler before it, for LISTEN; may be the same pool. */
  readonly direct?: PgPool | undefined;
  /** End the pools with the engine. */
  readonly owned?: boolean;
}

export function pgDriver(pool: PgPool, options: PgDriverOptions = {}): Driver {
  const { direct, owned = false } = options;
  const pools = direct && direct !== pool ? [pool, direct] : [pool];
  for (const each of pools) hear(each);
  return {
    name: 'pg',
    run: (sql, signal) => runOnPool(pool, sql, signal),
    ...(direct && {
      listen: (channel: string, handlers: ListenHandlers) => listenOn(direct, channel, handlers),
    }),
    close: async () => {
      if (owned) await Promise.all(pools.map((each) => each.end()));
      for (const each of pools) unhear(each);
    },
  };
}

/** Engines per pool: the listeners are there as long as one is. */
const users = new WeakMap<PgPool, number>();

/**
 * A connection that breaks is told as an event, and an unheard one ends the process. The pool hears
 * for those that are idle; a new one can break before whoever asked for it has it.
 */
function hear(pool: PgPool): void {
  const count = users.get(pool) ?? 0;
  users.set(pool, count + 1);
  if (count > 0) return;
  pool.on('error', ignore);
  pool.on('connect', ignoreErrorsOf);
}

function unhear(pool: PgPool): void {
  const count = (users.get(pool) ?? 1) - 1;
  users.set(pool, count);
  if (count > 0) return;
  pool.removeListener('error', ignore);
  pool.removeListener('connect', ignoreErrorsOf);
}

const ignore = (): void => {};
const ignoreErrorsOf = (client: PgClient): void => void client.on('error', ignore);

async function runOnPool(pool: PgPool, sql: string, signal: AbortSignal): Promise<string | null> {
  const client = await connect(pool, signal);
  let broken = false;
  const onError = (): void => {
    broken = true;
  };
  client.on('error', onError);
  try {
    return lastResult(await orAbort(client.query(sql), signal));
  } catch (error) {
    // A connection is kept only after an error that the server itself told.
    broken ||= signal.aborted || sqlState(error) === undefined;
    throw error;
  } finally {
    if (!broken) client.removeListener('error', onError);
    client.release(broken);
  }
}

/** A client of the pool; one that comes after the caller has gone is given back. */
async function connect(pool: PgPool, signal: AbortSignal): Promise<PgClient> {
  const coming = pool.connect();
  try {
    return await orAbort(coming, signal);
  } catch (error) {
    coming.then(
      (client) => client.release(),
      () => {},
    );
    throw new NotSentError(error);
  }
}

async function listenOn(
  pool: PgPool,
  channel: string,
  { onNotify, onLost }: ListenHandlers,
): Promise<() => Promise<void>> {
  const client = await pool.connect();
  let over = false;
  const end = (lost: boolean): void => {
    if (over) return;
    over = true;
    client.release(true);
    if (lost) onLost();
  };
  client.on('error', () => end(true));
  client.on('end', () => end(true));
  client.on('notification', (message: PgNotification) => onNotify(message.payload ?? ''));
  try {
    await client.query(`listen ${channel}`);
  } catch (error) {
    end(false);
    throw error;
  }
  return async () => end(false);
}

export interface PostgresJsDriverOptions {
  /** The connection goes straight to the server, so LISTEN works. */
  readonly direct?: boolean;
  readonly owned?: boolean;
}

export function postgresJsDriver(sql: PostgresJs, options: PostgresJsDriverOptions = {}): Driver {
  return {
    name: 'postgres.js',
    run: async (text, signal) => {
      const query = sql.unsafe(text);
      return lastResult(await orAbort(Promise.resolve(query), signal, () => query.cancel()));
    },
    ...(options.direct && {
      // postgres.js listens again by itself when the connection breaks; what came between is
      // found by the poll that goes on at a slow pace beside.
      listen: async (channel: string, { onNotify }: ListenHandlers) => {
        const { unlisten } = await sql.listen(channel, onNotify, () => onNotify(''));
        return async () => void (await unlisten().catch(() => {}));
      },
    }),
    close: async () => {
      if (options.owned) await sql.end({ timeout: 1 });
    },
  };
}

export function pgliteDriver(db: PGliteLike, options: { readonly owned?: boolean } = {}): Driver {
  return {
    name: 'pglite',
    run: async (sql, signal) => lastResult(await orAbort(db.exec(sql), signal)),
    listen: (channel, { onNotify }) => db.listen(channel, onNotify),
    close: async () => {
      if (options.owned) await db.close();
    },
  };
}

/** The connection could not be had, so nothing was sent. */
export class NotSentError extends Error {
  override readonly name = 'NotSentError';

  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** The five characters by which the server says what went wrong; absent when it said nothing. */
export function sqlState(error: unknown): string | undefined {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  // Of the system's own codes EPIPE has five letters too, but none has a digit.
  return typeof code === 'string' && /^(?=.*\d)[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

function orAbort<T>(work: Promise<T>, signal: AbortSignal, onAbort = () => {}): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      onAbort();
      reject(new HoldfastError('deadline-exceeded', 'the database did not answer in time'));
    };
    if (signal.aborted) {
      work.catch(() => {});
      abort();
      return;
    }
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
