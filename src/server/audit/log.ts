/**
 * The audit log of an authority: one chain in its store, whichever server writes.
 *
 *   \0audit                 the head: number and hash of the newest entry
 *   \0audit/<seq, 16 hex>   the entries, each as a line of JSON
 *
 * Who adds an entry compares the head in the same transaction, so several servers before one store
 * share one chain without a gap or a branch. An act that is a transaction itself takes its entry
 * along (`alongside`); one that is not is announced before it begins and told again when it ended
 * (`around`); what happens to the server, and what was refused, is written behind (`note`).
 */
import { createHash } from 'node:crypto';
import { type Bytes, concatBytes, equalBytes, text, utf8 } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import type { Engine } from '../../engine/contract.ts';
import {
  type AuditAct,
  type AuditEntry,
  ERA_ACT,
  linked,
  NO_HASH,
  NOBODY,
  PRUNE_ACT,
  readEntry,
  type Sha256,
  writeEntry,
} from '../../model/audit.ts';
import { pruned } from '../../model/audit-chain.ts';
import { HoldfastError } from '../../model/errors.ts';
import { prefixEnd } from '../../model/range.ts';
import type { Header } from '../../model/transaction.ts';
import type { Along, MakeAlong } from './along.ts';
import { Turns } from './turns.ts';

/** Below a zero byte, out of every client's and every tenant's reach: `\0audit`. */
export const AUDIT_KEY: Bytes = Uint8Array.of(0, 0x61, 0x75, 0x64, 0x69, 0x74);
const ENTRIES: Bytes = concatBytes(AUDIT_KEY, utf8('/'));

/** Attempts against other servers that write at the same time; each time one of them succeeds. */
const ATTEMPTS_MAX = 64;
/** What could not be written is kept so long; more is only counted. */
const OWED_MAX = 256;
/** Of those at once, beside the act itself. */
const OWED_AT_ONCE = 32;

export const sha256: Sha256 = (bytes) => createHash('sha256').update(bytes).digest();

export interface AuditHead {
  readonly seq: number;
  readonly hash: string;
  readonly era: number;
  /** The oldest entry that is there. */
  readonly first: number;
}

/** What is to be told of an act; the log knows the time. */
export type Told = Partial<AuditAct> & { readonly act: string };

export interface AuditLogOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly server: string;
  /** Told what could not be written. */
  readonly onFailure: (message: string, reason: string) => void;
}

interface Standing {
  readonly head: AuditHead;
  readonly modRevision: number;
  readonly header: Header;
}

const EMPTY_HEAD: AuditHead = { seq: 0, hash: NO_HASH, era: 0, first: 1 };

export class AuditLog {
  readonly #options: AuditLogOptions;
  readonly #turns = new Turns();
  #owed: AuditAct[] = [];
  #lost = 0;

  constructor(options: AuditLogOptions) {
    this.#options = options;
  }

  /**
   * For an act that is a transaction: `work` puts what it is given into it. When it fails nothing
   * of both is there, when its outcome is unknown so is the entry's.
   */
  alongside<T>(told: Told, work: (along: MakeAlong) => Promise<T>): Promise<T> {
    const act = this.#act(told);
    return this.#turns.next(async () => {
      await this.#settle();
      return work(this.#along(act));
    });
  }

  /** The same for an act that nobody waits for in line. */
  along(told: Told): MakeAlong {
    return (more) => this.#along(this.#act(told))(more);
  }

  #along(act: AuditAct): MakeAlong {
    return async (more) => {
      const standing = await this.#standing();
      return along(standing, this.#made([{ ...act, ...more }], standing));
    };
  }

  /**
   * For an act that is none: it begins only when an entry says so, and its end has a second one.
   * If that one cannot be written at once it is owed; the first stands with `unknown` meanwhile.
   * `remedy`: it may help a store that is full, where the entry could not be written.
   */
  async around<T>(
    told: Told,
    work: () => Promise<T>,
    { remedy = false, ended = () => ({}) }: AroundOptions<T> = {},
  ): Promise<T> {
    const of = await this.#begin(told, remedy);
    try {
      const result = await work();
      await this.note({ outcome: 'done', ...told, of, ...ended(result) });
      return result;
    } catch (error) {
      const { message, outcome } = HoldfastError.from(error);
      const how = outcome === 'unknown' ? ('unknown' as const) : ('refused' as const);
      await this.note({ ...told, of, outcome: how, reason: message });
      throw error;
    }
  }

  /** Writes what happened; owes it when it cannot. Never throws. */
  async note(told: Told): Promise<void> {
    const act = this.#act(told);
    await this.#turns.next(async () => {
      this.#owe(act);
      await this.#settle();
    });
  }

  /** Like `note`, but it waits for the first entry of a store in which nothing has happened yet. */
  async begin(told: Told): Promise<void> {
    const act = this.#act(told);
    await this.#turns.next(async () => {
      this.#owe(act);
      if (!(await this.#isFresh())) await this.#settle();
    });
  }

  /** The end of what was begun; nothing if nothing has been written. */
  async end(told: Told): Promise<void> {
    if (await this.#isFresh()) return;
    await this.note(told);
  }

  async head(): Promise<{ readonly head: AuditHead; readonly header: Header }> {
    return this.#standing();
  }

  /** Entries from `from` on, oldest first. */
  async entries(from: number, limit: number): Promise<AuditEntry[]> {
    const range = { key: keyOf(from), end: prefixEnd(ENTRIES) };
    const { kvs } = await this.#options.engine.range({ ...range, limit });
    return kvs.map(({ value }) => {
      const entry = readEntry(text(value));
      if (entry) return entry;
      throw new HoldfastError('corrupt', 'an entry of the audit log is damaged');
    });
  }

  /** Removes the entries before `before`; the one that says so holds the hash of the last of them. */
  prune(before: number, told: Omit<Told, 'act'>): Promise<number> {
    return this.#turns.next(async () => {
      await this.#settle();
      return this.#attempts((standing) => this.#prune(standing, before, told));
    });
  }

  async #prune(standing: Standing, before: number, told: Omit<Told, 'act'>) {
    const { first, seq } = standing.head;
    if (before <= first || before > seq + 1) {
      const here = seq === 0 ? 'no entries' : `entries ${first} to ${seq}`;
      throw new HoldfastError(
        'invalid-argument',
        `none is pruned before ${before}: ${here} are there`,
      );
    }
    const [last] = await this.entries(before - 1, 1);
    if (last?.seq !== before - 1) throw damaged();
    const act = this.#act({ ...told, act: PRUNE_ACT, ...pruned(before, last.hash) });
    const entries = this.#made([act], standing);
    const { compare, success } = along(standing, entries, before);
    const remove = { type: 'delete', key: ENTRIES, end: keyOf(before) } as const;
    const { succeeded } = await this.#options.engine.txn({
      compare,
      success: [remove, ...success],
    });
    return succeeded ? before - first : undefined;
  }

  /** Whether the store is as new as it can be: its history must not begin with what we say of it. */
  async #isFresh(): Promise<boolean> {
    try {
      const { head, header } = await this.#standing();
      return head.seq === 0 && header.revision <= 1;
    } catch {
      return false;
    }
  }

  async #begin(told: Told, remedy: boolean): Promise<number> {
    const act = this.#act({ ...told, outcome: 'unknown' });
    return this.#turns.next(async () => {
      await this.#settle();
      try {
        return await this.#append([act]);
      } catch (error) {
        if (!remedy || !HoldfastError.is(error, 'no-space')) throw unwritten(error);
        this.#owe(act);
        this.#options.onFailure('not in the audit log yet: the store is full', act.act);
        return 0;
      }
    });
  }

  #act(told: Told): AuditAct {
    const now = { wallMs: this.#options.clock.wall() };
    const rest = { subject: '', outcome: 'done', reason: '', times: 1, of: 0 } as const;
    return { ...NOBODY, ...rest, ...now, ...told };
  }

  #owe(act: AuditAct): void {
    if (this.#owed.length < OWED_MAX) this.#owed.push(act);
    else this.#lost += act.times;
  }

  /** Writes what is owed, as far as it goes. */
  async #settle(): Promise<void> {
    try {
      while (this.#owed.length > 0 || this.#lost > 0) {
        const some = this.#owed.slice(0, OWED_AT_ONCE);
        const lost = some.length === this.#owed.length ? this.#lost : 0;
        const tail = lost > 0 ? [this.#act({ act: 'audit.lost', times: lost })] : [];
        await this.#append([...some, ...tail]);
        this.#owed = this.#owed.slice(some.length);
        this.#lost -= lost;
      }
    } catch (error) {
      const { message } = HoldfastError.from(error);
      this.#options.onFailure(`${this.#owed.length} entries wait for the audit log`, message);
    }
  }

  /** The number of the last of them. */
  #append(acts: readonly AuditAct[]): Promise<number> {
    const sent: AuditEntry[] = [];
    return this.#attempts(async (standing) => {
      // Where an answer was lost the entry itself tells whether it is there.
      for (const entry of sent) if (await this.#stands(entry)) return entry.seq;
      const entries = this.#made(acts, standing);
      const last = entries.at(-1)!;
      try {
        const { succeeded } = await this.#options.engine.txn(along(standing, entries));
        return succeeded ? last.seq : undefined;
      } catch (error) {
        if (HoldfastError.from(error).outcome !== 'unknown') throw error;
        sent.push(last);
        return undefined;
      }
    });
  }

  async #attempts<T>(attempt: (standing: Standing) => Promise<T | undefined>): Promise<T> {
    for (let left = ATTEMPTS_MAX; left > 0; left--) {
      const done = await attempt(await this.#standing());
      if (done !== undefined) return done;
    }
    const { head } = await this.#standing();
    // What stands where the next entry belongs was not put there by a server.
    if ((await this.entries(head.seq + 1, 1)).length > 0) throw damaged();
    throw new HoldfastError('conflict', 'other servers keep writing the audit log; try again');
  }

  async #stands(entry: AuditEntry): Promise<boolean> {
    const { kvs } = await this.#options.engine.range({ key: keyOf(entry.seq) });
    return kvs[0] !== undefined && equalBytes(kvs[0].value, utf8(writeEntry(entry)));
  }

  async #standing(): Promise<Standing> {
    const { kvs, header } = await this.#options.engine.range({ key: AUDIT_KEY });
    const [stored] = kvs;
    if (!stored) return { head: EMPTY_HEAD, modRevision: 0, header };
    return { head: decodeHead(stored.value), modRevision: stored.modRevision, header };
  }

  /** The acts in their places; where the era has risen an entry says so first. */
  #made(acts: readonly AuditAct[], { head, header }: Standing): AuditEntry[] {
    // A gateway before a cluster may not have heard yet that another one lifted the era.
    const era = Math.max(header.era, head.era);
    const rose = head.seq > 0 && era > head.era;
    const reason = 'what era before wrote behind this point, if anything, is not in this chain';
    const rise = { act: ERA_ACT, subject: `${head.era} to ${era}`, reason };
    const { server } = this.#options;
    const entries: AuditEntry[] = [];
    let { seq, hash: previous } = head;
    for (const act of rose ? [this.#act(rise), ...acts] : acts) {
      const place = { seq: ++seq, era, revision: header.revision, server, previous };
      const entry = linked(act, place, sha256);
      entries.push(entry);
      previous = entry.hash;
    }
    return entries;
  }
}

export interface AroundOptions<T> {
  readonly remedy?: boolean;
  /** What the result says of the end. */
  readonly ended?: (result: T) => Partial<AuditAct>;
}

/** Compares the head, and the place of each entry, where nothing may stand. */
function along(
  { head, modRevision }: Standing,
  entries: readonly AuditEntry[],
  first: number = head.first,
): Along {
  const { seq, hash, era } = entries.at(-1)!;
  const next: AuditHead = { seq, hash, era, first };
  const free = { key: keyOf(entries[0]!.seq), end: prefixEnd(ENTRIES) };
  return {
    compare: [
      { key: AUDIT_KEY, target: 'mod', result: '=', value: modRevision },
      { ...free, target: 'create', result: '=', value: 0 },
    ],
    success: [
      ...entries.map((entry) => ({
        type: 'put' as const,
        key: keyOf(entry.seq),
        value: utf8(writeEntry(entry)),
      })),
      { type: 'put', key: AUDIT_KEY, value: utf8(JSON.stringify(next)) },
    ],
  };
}

function keyOf(seq: number): Bytes {
  return concatBytes(ENTRIES, utf8(seq.toString(16).padStart(16, '0')));
}

function decodeHead(stored: Bytes): AuditHead {
  try {
    const { seq, hash, era, first } = JSON.parse(text(stored)) as AuditHead;
    if ([seq, era, first].every(Number.isSafeInteger) && /^[0-9a-f]{64}$/.test(hash)) {
      return { seq, hash, era, first };
    }
  } catch {
    // No JSON: told below.
  }
  throw damaged();
}

function damaged(): HoldfastError {
  return new HoldfastError('corrupt', 'the audit log is damaged; nothing was dropped or repaired');
}

function unwritten(error: unknown): HoldfastError {
  const { code, message } = HoldfastError.from(error);
  return new HoldfastError(code, `not done, because the audit log cannot be written: ${message}`, {
    cause: error,
  });
}
