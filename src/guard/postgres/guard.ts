/**
 * Guards rows of a PostgreSQL: mark and effect are in one transaction, the user's own.
 *
 *     await pool.transaction(async (tx) => {
 *       await guard.admit(tx, grant, 'orders/42');
 *       await tx.query('update …');
 *     });
 *
 * A table that was `protect`ed refuses every write whose transaction no token has passed, so a
 * forgotten `admit` is an error and not a hole. Nothing is kept in the session.
 */
import { HoldfastError } from '../../model/errors.ts';
import { formatToken, parseToken, type Token } from '../../model/token.ts';
import type { Rule } from '../fence.ts';
import { type Claim, Gate, type GuardOptions, type Mark, type Presented } from '../gate.ts';
import { queryOf, type Row, refusePool, type Transaction } from './query.ts';
import { installSql, SCHEMA_VERSION } from './schema.ts';

export interface AdmitOptions {
  readonly rule?: Rule;
}

export class PostgresGuard {
  readonly #gate: Gate;

  private constructor(options: GuardOptions) {
    this.#gate = new Gate('postgres', options);
  }

  /** Installs or upgrades the SQL objects; safe to run at every start and from several at once. */
  static async install(target: Transaction): Promise<void> {
    await queryOf(target)(installSql(), []);
  }

  /**
   * Probes the database and answers a guard for it. A pool is fine here. Errors: `guard-unfit`
   * when the objects are missing, older than needed, or do not refuse what they must.
   */
  static async open(target: Transaction, options: GuardOptions = {}): Promise<PostgresGuard> {
    await probe(target);
    return new PostgresGuard(options);
  }

  /**
   * Call it first in the transaction that writes. Passing it makes newer tokens wait until this
   * transaction ends. Errors: `stale`, `token-invalid`, `token-unsealed`; after any of them the
   * transaction can only be rolled back.
   */
  async admit(
    tx: Transaction,
    presented: Presented,
    resource: string,
    { rule = 'reign' }: AdmitOptions = {},
  ): Promise<Token> {
    refusePool(tx);
    await this.#gate.ready(presented);
    const claim = this.#gate.read(presented, resource);
    return await this.#pass(
      tx,
      claim,
      'select holdfast_guard.admit($1::text, $2::bigint, $3::text, $4::text)::text as mark',
      [resource, formatToken(claim.token), rule, claim.holder ?? null],
    );
  }

  /**
   * For readers: passes unless a newer writer has acted, holds newer writers off until this
   * transaction ends, and keeps older ones out for good.
   */
  async admitRead(tx: Transaction, presented: Presented, resource: string): Promise<Token> {
    refusePool(tx);
    await this.#gate.ready(presented);
    const claim = this.#gate.read(presented, resource);
    return await this.#pass(
      tx,
      claim,
      'select holdfast_guard.admit_read($1::text, $2::bigint, $3::text)::text as mark',
      [resource, formatToken(claim.token), claim.holder ?? null],
    );
  }

  /** The mark of a resource, 0n when nobody has written yet. */
  async mark(target: Transaction, resource: string): Promise<Token> {
    const [row] = await queryOf(target)('select holdfast_guard.mark_of($1::text)::text as mark', [
      resource,
    ]);
    return BigInt(String(row?.mark ?? '0'));
  }

  async #pass(
    tx: Transaction,
    claim: Claim,
    text: string,
    params: readonly unknown[],
  ): Promise<Token> {
    let row: Row | undefined;
    try {
      [row] = await queryOf(tx)(text, params);
    } catch (error) {
      const mark = staleMark(error);
      if (mark) throw this.#gate.refused(claim, mark);
      throw databaseError(error);
    }
    this.#gate.admitted(claim);
    return BigInt(String(row?.mark));
  }
}

/** The whole table is one resource: every write needs a passing token for it. */
export async function protectTable(
  target: Transaction,
  table: string,
  resource: string,
): Promise<void> {
  await queryOf(target)('select holdfast_guard.protect($1::regclass, $2::text)', [table, resource]);
}

/** Each row is a resource: `prefix` followed by the value of `column`. */
export async function protectRows(
  target: Transaction,
  table: string,
  { prefix, column }: { readonly prefix: string; readonly column: string },
): Promise<void> {
  await queryOf(target)('select holdfast_guard.protect_rows($1::regclass, $2::text, $3::text)', [
    table,
    prefix,
    column,
  ]);
}

export async function unprotectTable(target: Transaction, table: string): Promise<void> {
  await queryOf(target)('select holdfast_guard.unprotect($1::regclass)', [table]);
}

async function probe(target: Transaction): Promise<void> {
  const query = queryOf(target);
  let version: unknown;
  let verdict: unknown;
  try {
    [{ version } = { version: 0 }] = await query('select version from holdfast_guard.version', []);
    if (Number(version) < SCHEMA_VERSION) throw unfit(`its objects are version ${version}`);
    [{ verdict } = { verdict: 'no answer' }] = await query(
      'select holdfast_guard.probe() as verdict',
      [],
    );
  } catch (cause) {
    if (HoldfastError.is(cause)) throw cause;
    if (!['42P01', '42883', '3F000'].includes(sqlState(cause) ?? '')) throw databaseError(cause);
    throw unfit('the guard is not installed; run PostgresGuard.install', cause);
  }
  if (verdict !== 'ok') throw unfit(String(verdict));
}

function unfit(why: string, cause?: unknown): HoldfastError {
  return new HoldfastError('guard-unfit', `this database cannot be guarded: ${why}`, { cause });
}

function sqlState(error: unknown): string | undefined {
  for (let at = error, depth = 0; at && depth < 4; depth++) {
    const { code, cause } = at as { code?: unknown; cause?: unknown };
    if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) return code;
    // Drizzle wraps what the driver threw.
    at = cause;
  }
  return undefined;
}

function staleMark(error: unknown): Mark | undefined {
  if (sqlState(error) !== 'HF001') return undefined;
  for (let at = error, depth = 0; at && depth < 4; depth++) {
    const { detail, cause } = at as { detail?: unknown; cause?: unknown };
    if (typeof detail === 'string') {
      const { mark, holder, atMs } = JSON.parse(detail) as Record<string, string | number | null>;
      return {
        token: parseToken(mark),
        holder: typeof holder === 'string' ? holder : undefined,
        atMs: typeof atMs === 'number' ? atMs : undefined,
      };
    }
    at = cause;
  }
  return undefined;
}

/** The database's own refusals keep their text; what the connection did is unknown. */
function databaseError(error: unknown): HoldfastError {
  const state = sqlState(error);
  const message = error instanceof Error ? error.message : String(error);
  if (state === 'HF003') return new HoldfastError('token-invalid', message, { cause: error });
  if (state === '40001' || state === '40P01') {
    return new HoldfastError('conflict', `${message}; retry the transaction`, { cause: error });
  }
  return new HoldfastError('unavailable', `the database did not admit: ${message}`, {
    cause: error,
    outcome: state ? 'rejected' : 'unknown',
  });
}
