/**
 * Transactions as a function: reads are noted, writes are kept back, and at the end everything is
 * applied at once if nothing that was read has changed. On a conflict the function runs again, so
 * it should do nothing but read and write through its argument. Applied once, also when the answer
 * was lost.
 */
import { type Bytes, binaryString, utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Compare, KeyValue, Operation, Revision } from '../model/transaction.ts';
import { backOff } from './authority.ts';
import type { SessionSource } from './lock.ts';
import { applyOnce } from './once-only.ts';
import type { Session } from './session.ts';

export interface Transaction {
  /** The key as it stands at the one revision at which all reads of this run are made. */
  get(key: string | Bytes): Promise<KeyValue | undefined>;
  put(key: string | Bytes, value: string | Bytes): void;
  delete(key: string | Bytes): void;
  /** The transaction fails with `grant-lost` unless this holds; for `grant.ownership()`. */
  require(compare: Compare): void;
}

export interface TransactOptions {
  /** Runs before giving up with `conflict`. Default 100. */
  readonly attempts?: number;
}

export async function transact<T>(
  session: Session,
  work: (transaction: Transaction) => T | Promise<T>,
  options: TransactOptions = {},
): Promise<T> {
  const { attempts = 100 } = options;
  for (let attempt = 0; attempt < attempts; attempt++) {
    const run = new Run(session);
    let result: T;
    try {
      result = await work(run);
    } catch (error) {
      // The revision of the first read was compacted away meanwhile.
      if (!HoldfastError.is(error, 'compacted')) throw error;
      continue;
    }
    if (await run.commit()) return result;
    await backOff(session.authority, attempt);
  }
  throw new HoldfastError('conflict', `other writers were faster ${attempts} times`);
}

function bytesOf(value: string | Bytes): Bytes {
  return typeof value === 'string' ? utf8(value) : value;
}

class Run implements Transaction {
  readonly #session: Session;
  readonly #reads = new Map<string, Promise<KeyValue | undefined>>();
  readonly #writes = new Map<string, Operation>();
  readonly #required: Compare[] = [];
  #revision: Promise<Revision> | undefined;

  constructor(session: Session) {
    this.#session = session;
  }

  async get(key: string | Bytes): Promise<KeyValue | undefined> {
    const bytes = bytesOf(key);
    const name = binaryString(bytes);
    const written = this.#writes.get(name);
    const read = this.#reads.get(name) ?? this.#read(bytes);
    this.#reads.set(name, read);
    const kv = await read;
    if (!written) return kv;
    if (written.type !== 'put') return undefined;
    const value = written.value ?? new Uint8Array(0);
    const none = { createRevision: 0, modRevision: 0, version: 0, lease: 0n };
    return { ...none, ...kv, key: bytes, value };
  }

  put(key: string | Bytes, value: string | Bytes): void {
    const bytes = bytesOf(key);
    this.#writes.set(binaryString(bytes), { type: 'put', key: bytes, value: bytesOf(value) });
  }

  delete(key: string | Bytes): void {
    const bytes = bytesOf(key);
    this.#writes.set(binaryString(bytes), { type: 'delete', key: bytes });
  }

  require(compare: Compare): void {
    this.#required.push(compare);
  }

  async commit(): Promise<boolean> {
    const compare: Compare[] = [...this.#required];
    for (const [name, read] of this.#reads) {
      const key = Uint8Array.from(name, (character) => character.charCodeAt(0));
      compare.push({ key, target: 'mod', result: '=', value: (await read)?.modRevision ?? 0 });
    }
    const success = [...this.#writes.values()];
    if (success.length === 0 && compare.length === 0) return true;
    const checks = this.#required.map((one): Operation => ({ type: 'txn', compare: [one] }));
    const answer = await applyOnce(this.#session, { compare, success, failure: checks });
    if (answer.applied) return true;
    if (answer.results.some((result) => result.type === 'txn' && !result.succeeded)) {
      throw new HoldfastError('grant-lost', 'what the transaction requires does not hold');
    }
    return false;
  }

  async #read(key: Bytes): Promise<KeyValue | undefined> {
    const { engine } = this.#session.authority;
    if (this.#revision) {
      const revision = await this.#revision;
      return (await this.#session.call(() => engine.range({ key, revision }))).kvs[0];
    }
    const first = this.#session.call(() => engine.range({ key }));
    this.#revision = first.then(({ header }) => header.revision);
    return (await first).kvs[0];
  }
}

export interface Versioned {
  readonly value: Bytes;
  /** Give it to `compareAndSet`. 0: the key does not exist. */
  readonly revision: Revision;
}

/** One key with compare-and-set. */
export class Cell {
  readonly #key: Bytes;
  readonly #session: SessionSource;

  constructor(key: string | Bytes, session: SessionSource) {
    this.#key = bytesOf(key);
    this.#session = session;
  }

  async get(): Promise<Versioned | undefined> {
    const session = await this.#session();
    const { kvs } = await session.call(() => session.authority.engine.range({ key: this.#key }));
    return kvs[0] && { value: kvs[0].value, revision: kvs[0].modRevision };
  }

  /** Sets the value if the key still stands at `revision`; answers the new revision. */
  async compareAndSet(revision: Revision, value: string | Bytes): Promise<Revision | undefined> {
    const answer = await applyOnce(await this.#session(), {
      compare: [{ key: this.#key, target: 'mod', result: '=', value: revision }],
      success: [{ type: 'put', key: this.#key, value: bytesOf(value) }],
    });
    return answer.applied ? answer.revision : undefined;
  }

  /** Replaces the value by what `change` makes of it; runs again on a conflict. */
  async update(change: (value: Bytes | undefined) => string | Bytes): Promise<Bytes> {
    return await transact(await this.#session(), async (transaction) => {
      const value = bytesOf(change((await transaction.get(this.#key))?.value));
      transaction.put(this.#key, value);
      return value;
    });
  }
}
