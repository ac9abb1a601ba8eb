/**
 * How the guard talks to a database: whatever can run SQL with parameters *inside the user's own
 * transaction*. No driver is imported; each is recognised by what it offers.
 */
import { HoldfastError } from '../../model/errors.ts';

export type Row = Readonly<Record<string, unknown>>;
export type QueryFunction = (text: string, params: readonly unknown[]) => Promise<readonly Row[]>;

/** A client of `pg` within a transaction. */
interface PgClient {
  query(text: string, params: unknown[]): Promise<{ readonly rows: readonly unknown[] }>;
}
/** The `sql` that postgres.js gives to `sql.begin(async sql => …)`. */
interface PostgresJs {
  // biome-ignore lint/suspicious/noExplicitAny: its own type lists only the parameters it knows.
  unsafe(text: string, params?: any[]): PromiseLike<readonly unknown[]>;
}
/** A transaction of Kysely. */
interface KyselyTransaction {
  // biome-ignore lint/suspicious/noExplicitAny: the query node's type belongs to Kysely.
  executeQuery(query: any): Promise<{ readonly rows: readonly unknown[] }>;
}
/** Any function of text and parameters; answers rows or something with rows. */
type AnyQuery = (
  text: string,
  params: unknown[],
) => PromiseLike<readonly unknown[] | { readonly rows: readonly unknown[] }>;

export type Transaction = PgClient | PostgresJs | KyselyTransaction | AnyQuery;

export function queryOf(target: Transaction): QueryFunction {
  const it = target as Partial<PgClient & PostgresJs & KyselyTransaction>;
  // postgres.js is a function too, so its `unsafe` is looked for first.
  if (typeof it.unsafe === 'function') {
    const run = it.unsafe.bind(target);
    return async (text, params) => rowsOf(await run(text, [...params]));
  }
  if (typeof it.executeQuery === 'function') {
    const run = it.executeQuery.bind(target);
    return async (text, params) => rowsOf(await run(compiled(text, params)));
  }
  if (typeof it.query === 'function') {
    const run = it.query.bind(target);
    return async (text, params) => rowsOf(await run(text, [...params]));
  }
  if (typeof target === 'function') {
    return async (text, params) => rowsOf(await (target as AnyQuery)(text, [...params]));
  }
  throw new HoldfastError('invalid-argument', 'this is nothing a query can be run on');
}

/**
 * A pool runs every query in a transaction of its own: the token would pass in one and the writes
 * happen in others. Refused here, where the mistake is made.
 */
export function refusePool(target: Transaction): void {
  const { totalCount, idleCount, isTransaction, begin } = target as Record<string, unknown> &
    Transaction;
  const pgPool = typeof totalCount === 'number' && typeof idleCount === 'number';
  const plainKysely = isTransaction === false;
  const plainPostgresJs = typeof begin === 'function';
  if (!pgPool && !plainKysely && !plainPostgresJs) return;
  throw new HoldfastError(
    'invalid-argument',
    'the guard needs the client of your transaction, not the pool: the token must pass in the ' +
      'same transaction as the writes',
  );
}

type Tag<Q> = (strings: TemplateStringsArray, ...values: unknown[]) => Q;

/** `guard.admit(drizzleQuery(tx, sql), …)`, with drizzle's own `sql` tag. */
export function drizzleQuery<Q>(
  tx: { execute(query: Q): PromiseLike<unknown> },
  sql: Tag<Q>,
): AnyQuery {
  return async (text, params) => {
    // Our statements use $1, $2, … once each and in order.
    const strings = text.split(/\$\d+/);
    const template = Object.assign([...strings], { raw: strings });
    return rowsOf(await tx.execute(sql(template, ...params)));
  };
}

function compiled(text: string, params: readonly unknown[]): object {
  const query = { kind: 'RawNode', sqlFragments: [text], parameters: [] };
  return { query, sql: text, parameters: params, queryId: { queryId: 'holdfast' } };
}

function rowsOf(result: unknown): readonly Row[] {
  const rows = Array.isArray(result) ? result : (result as { rows?: unknown }).rows;
  if (Array.isArray(rows)) return rows as readonly Row[];
  throw new HoldfastError('invalid-argument', 'the query function answered no rows');
}
