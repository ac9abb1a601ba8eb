/**
 * Numbers that several processes change: a counter, and a sequence that takes its numbers in
 * blocks. Every change happens once, also when its answer was lost.
 */
import { type Bytes, binaryString, text, utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import type { KeyValue } from '../model/transaction.ts';
import { type Authority, backOff } from './authority.ts';
import { checkName, ownKey } from './keys.ts';
import type { SessionSource } from './lock.ts';
import { applyOnce, inTurn } from './once-only.ts';
import type { Session } from './session.ts';

/** Conflicts with other processes before giving up. */
const CONFLICTS_MAX = 1_000;

export class Counter {
  readonly name: string;
  readonly #authority: Authority;
  readonly #sessions: SessionSource;
  readonly #key: Bytes;

  constructor(name: string, authority: Authority, sessions: SessionSource) {
    this.name = checkName(name);
    this.#authority = authority;
    this.#sessions = sessions;
    this.#key = ownKey(authority.namespace, 'counter', name);
  }

  async get(): Promise<bigint> {
    const { kvs } = await this.#authority.engine.range({ key: this.#key });
    return numberOf(kvs[0]);
  }

  /** Adds and answers the new value. */
  async add(amount: bigint | number = 1n): Promise<bigint> {
    const added = BigInt(amount);
    return await changeNumber(await this.#sessions(), this.#key, (value) => value + added);
  }

  async set(value: bigint | number): Promise<void> {
    const wanted = BigInt(value);
    await changeNumber(await this.#sessions(), this.#key, () => wanted);
  }
}

export interface SequenceOptions {
  /** Numbers taken at once; those not used when the process ends are skipped. Default 100. */
  readonly block?: number | undefined;
}

/** Unique numbers, rising within each process. */
export class Sequence {
  readonly #counter: Counter;
  readonly #block: bigint;
  #next = 0n;
  #end = 0n;
  #refill: Promise<void> | undefined;

  constructor(counter: Counter, options: SequenceOptions = {}) {
    const { block = 100 } = options;
    if (!Number.isSafeInteger(block) || block < 1) {
      throw new HoldfastError('invalid-argument', 'block: expected a whole number from 1 on');
    }
    this.#counter = counter;
    this.#block = BigInt(block);
  }

  async next(): Promise<bigint> {
    while (this.#next >= this.#end) {
      this.#refill ??= this.#fill();
      await this.#refill;
    }
    return this.#next++;
  }

  /** A block of its own: `count` numbers from `first` on, used by nobody else. */
  async allocate(
    count: number | bigint,
  ): Promise<{ readonly first: bigint; readonly count: bigint }> {
    const size = BigInt(count);
    if (size < 1n) throw new HoldfastError('invalid-argument', 'count: expected at least 1');
    const end = await this.#counter.add(size);
    return { first: end - size + 1n, count: size };
  }

  async #fill(): Promise<void> {
    try {
      const { first, count } = await this.allocate(this.#block);
      this.#next = first;
      this.#end = first + count;
    } finally {
      this.#refill = undefined;
    }
  }
}

function numberOf(kv: KeyValue | undefined): bigint {
  if (!kv) return 0n;
  const stored = text(kv.value);
  if (/^-?[0-9]+$/.test(stored)) return BigInt(stored);
  throw new HoldfastError('corrupt', 'the key of a counter holds something that is not a number');
}

/** Changes a number by compare-and-set, once; answers the new value. */
export async function changeNumber(
  session: Session,
  key: Bytes,
  change: (value: bigint) => bigint,
): Promise<bigint> {
  const { authority } = session;
  return await inTurn(session, binaryString(key), async () => {
    let present = (await session.call(() => authority.engine.range({ key }))).kvs[0];
    for (let attempt = 0; attempt < CONFLICTS_MAX; attempt++) {
      const value = utf8(String(change(numberOf(present))));
      const answer = await applyOnce(session, {
        compare: [{ key, target: 'mod', result: '=', value: present?.modRevision ?? 0 }],
        success: [{ type: 'put', key, value }],
        failure: [{ type: 'range', key }],
        memo: value,
      });
      if (answer.applied) return BigInt(text(answer.memo));
      const [read] = answer.results;
      present = read?.type === 'range' ? read.kvs[0] : undefined;
      if (attempt > 2) await backOff(authority, Math.min(attempt, 5));
    }
    throw new HoldfastError('conflict', 'other processes changed the number each time');
  });
}
