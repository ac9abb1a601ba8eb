/**
 * Marks and intents in an embedded LMDB that several processes of one machine may open.
 *
 * LMDB's write transaction is the mutex between them: a process that is killed gives it up at
 * once, and nothing about it depends on time. `overlappingSync: false` makes a commit durable
 * before it is visible. Each record carries a checksum; a damaged one stops the guard, because a
 * mark that reads lower than it was would let a stale token pass. For the same reason each commit
 * writes its number, and a view is used only where no newer commit stands in the roots: LMDB may take
 * an older one for the newest (`base/lmdb-note.ts`).
 */
import { realpathSync, statfsSync } from 'node:fs';
import { setImmediate as endOfTurn } from 'node:timers/promises';
import { open } from 'lmdb';
import { utf8 } from '../base/bytes.ts';
import { crc32c } from '../base/checksum.ts';
import { makeDirectory } from '../base/directories.ts';
import { goesOnFromNewest, lockFileOf, NOTE_ATTEMPTS, type Noted } from '../base/lmdb-note.ts';
import { HoldfastError, type Outcome } from '../model/errors.ts';
import { formatToken, parseToken } from '../model/token.ts';
import type { Rule } from './fence.ts';
import type { Claim, Mark } from './gate.ts';
import { decide, type MarkStore, type MarkVerdict } from './marks.ts';

/** File systems whose locks or syncs do not hold between machines: NFS, SMB, CIFS, 9P, FUSE. */
const REMOTE = new Set([0x6969, 0xfe534d42, 0xff534d42, 0x517b, 0x01021997, 0x65735546]);

export interface TableTransaction {
  get(key: string): unknown;
  put(key: string, value: unknown): void;
  remove(key: string): void;
}

interface Native extends Noted {
  get(key: string): string | undefined;
  putSync(key: string, value: string): void;
  removeSync(key: string): void;
  transaction<T>(work: () => T): Promise<T>;
  resetReadTxn(): void;
  close(): Promise<void>;
}

/** The number of the commit that the view is of; former versions wrote none. */
const NEWEST = 'newest';

/** LMDB must be opened once per process and path. */
const opened = new Map<string, { table: MarkTable; users: number }>();

export class MarkTable {
  readonly #native: Native;
  readonly #path: string;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(native: Native, path: string) {
    this.#native = native;
    this.#path = path;
  }

  static open(directory: string): MarkTable {
    makeDirectory(directory, 0o700);
    const path = realpathSync(directory);
    refuseRemote(path);
    const present = opened.get(path);
    if (present) {
      present.users++;
      return present.table;
    }
    // Batches by turns have a promise of their own, which rejects with a commit and nobody hears.
    const sure = { overlappingSync: false, eventTurnBatching: false };
    const options: object = { path, noSubdir: false, encoding: 'string', ...sure };
    const lmdb = open(options as Parameters<typeof open>[0]);
    const native = Object.assign(lmdb, { directory: path, lockFile: lockFileOf(path) });
    const table = new MarkTable(native as unknown as Native, path);
    opened.set(path, { table, users: 1 });
    return table;
  }

  /**
   * Runs `work` while no other transaction of any process runs, and commits durably before it
   * resolves; one that throws writes nothing. One at a time within the process as well: LMDB would
   * commit several in one go, and an effect could then see an intent that is not yet durable.
   */
  async transact<T>(work: (table: TableTransaction) => T): Promise<T> {
    const run = this.#last.then(() => this.#transactNow(work));
    this.#last = run.catch(() => {});
    return await run;
  }

  /**
   * As of the newest commit. What is newer than the view may not be durable yet, or have been passed
   * over by LMDB: then a transaction tells.
   */
  async read(key: string): Promise<unknown> {
    const { stored, isNewest } = this.#view(key);
    if (isNewest) return decode(key, stored);
    return await this.transact((table) => table.get(key));
  }

  async close(): Promise<void> {
    const entry = opened.get(this.#path);
    if (!entry || --entry.users > 0) return;
    opened.delete(this.#path);
    await this.#last;
    await this.#native.close();
  }

  async #transactNow<T>(work: (table: TableTransaction) => T): Promise<T> {
    for (let attempt = 1; attempt <= NOTE_ATTEMPTS; attempt++) {
      const result = await this.#attempt(work);
      if (!result) continue;
      if ('error' in result) throw result.error;
      return result.value;
    }
    throw passedOver();
  }

  /** Undefined: LMDB would have gone on from an older commit than the newest; nothing was done. */
  async #attempt<T>(work: (table: TableTransaction) => T): Promise<Result<T> | undefined> {
    const native = this.#native;
    // An exception inside LMDB's transaction does not roll it back: writes are kept until `work`
    // has succeeded, and what it threw is carried out by hand.
    const run = (): Result<T> | undefined => {
      try {
        return goesOnFromNewest(native) ? { value: this.#run(work) } : undefined;
      } catch (error) {
        return { error };
      }
    };
    // Once LMDB has given up a look says so, and a transaction would never end.
    this.#view(NEWEST);
    try {
      return await await native.transaction(run);
    } catch (error) {
      throw notStored(await reasonOf(error), 'unknown');
    }
  }

  /** A record as it is seen, and whether no newer commit stands in the roots. */
  #view(key: string): { readonly stored: string | undefined; readonly isNewest: boolean } {
    const native = this.#native;
    try {
      const { lastTxnId } = native.getStats();
      // A cached read transaction could still show what was before another process's commit.
      native.resetReadTxn();
      const stored = native.get(key);
      return { stored, isNewest: numberIn(native.get(NEWEST)) >= lastTxnId };
    } catch (error) {
      throw HoldfastError.is(error) ? error : notStored(error, 'rejected');
    }
  }

  #run<T>(work: (table: TableTransaction) => T): T {
    const native = this.#native;
    const writes = new Map<string, string | undefined>();
    const value = work({
      get: (key) => decode(key, writes.has(key) ? writes.get(key) : native.get(key)),
      put: (key, next) => void writes.set(key, encode(key, next)),
      remove: (key) => void writes.set(key, undefined),
    });
    const number = native.getWriteTxnId();
    // Also after somebody who wrote none, for all who look.
    const unnumbered = numberIn(native.get(NEWEST)) < number - 1;
    if (writes.size > 0 || unnumbered) writes.set(NEWEST, encode(NEWEST, number));
    for (const [key, stored] of writes) {
      if (stored === undefined) native.removeSync(key);
      else native.putSync(key, stored);
    }
    return value;
  }
}

type Result<T> = { readonly value: T } | { readonly error: unknown };

function numberIn(stored: string | undefined): number {
  return Number(decode(NEWEST, stored) ?? 0);
}

function notStored(cause: unknown, outcome: Outcome): HoldfastError {
  const text = `the marks could not be stored: ${(cause as Error).message}`;
  return new HoldfastError('storage-failed', `${text}; see to the disk, and open the guard again`, {
    cause,
    outcome,
  });
}

/** Why LMDB refused a commit: it tells on a second promise. */
async function reasonOf(error: unknown): Promise<unknown> {
  const { commitError } = error as { readonly commitError?: Promise<unknown> };
  try {
    await Promise.race([commitError, endOfTurn()]);
    return error;
  } catch (reason) {
    return reason;
  }
}

function passedOver(): HoldfastError {
  return new HoldfastError(
    'unavailable',
    'LMDB takes another commit of the marks for the newest, and could not be set right: nothing ' +
      'was written; open the guard again',
    { outcome: 'rejected' },
  );
}

/** The marks of any number of resources, in a directory of their own. */
export class LmdbMarks implements MarkStore {
  readonly #table: MarkTable;

  private constructor(table: MarkTable) {
    this.#table = table;
  }

  static open(directory: string): LmdbMarks {
    return new LmdbMarks(MarkTable.open(directory));
  }

  async raise(claim: Claim, rule: Rule, atMs: number): Promise<MarkVerdict> {
    const key = markKey(claim.resource);
    // Most operations come under the mark's own token and change nothing: no commit, no sync.
    const seen = decide(readMark(await this.#table.read(key)), claim, rule, atMs);
    if (!seen.raised) return seen;
    return await this.#table.transact((table) => {
      const verdict = decide(readMark(table.get(key)), claim, rule, atMs);
      if (verdict.raised) table.put(key, storedMark(verdict.mark));
      return verdict;
    });
  }

  async mark(resource: string): Promise<Mark> {
    return readMark(await this.#table.read(markKey(resource))) ?? { token: 0n };
  }

  async close(): Promise<void> {
    await this.#table.close();
  }
}

export function markKey(resource: string): string {
  return `mark/${resource}`;
}

export function storedMark({ token, holder, atMs }: Mark): object {
  return { token: formatToken(token), holder, atMs };
}

export function readMark(stored: unknown): Mark | undefined {
  if (stored === undefined) return undefined;
  const { token, holder, atMs } = stored as Record<string, unknown>;
  return {
    token: parseToken(token),
    holder: typeof holder === 'string' ? holder : undefined,
    atMs: typeof atMs === 'number' ? atMs : undefined,
  };
}

function encode(key: string, value: unknown): string {
  const text = JSON.stringify(value);
  return `${checksum(key, text)} ${text}`;
}

function decode(key: string, stored: string | undefined): unknown {
  if (stored === undefined) return undefined;
  const [sum, ...rest] = stored.split(' ');
  const text = rest.join(' ');
  if (sum === checksum(key, text)) return JSON.parse(text);
  throw new HoldfastError('corrupt', `the record ${JSON.stringify(key)} of the marks is damaged`);
}

function checksum(key: string, text: string): string {
  return crc32c(utf8(`${key} ${text}`))
    .toString(16)
    .padStart(8, '0');
}

function refuseRemote(path: string): void {
  if (!REMOTE.has(statfsSync(path).type)) return;
  throw new HoldfastError(
    'guard-unfit',
    `${path} is on a network or user-space file system, whose locks and syncs do not hold`,
  );
}
