/**
 * Group membership: who is there, and events when members join, change, leave or fail.
 *
 * A member that leaves says so before its key goes, so that the others can tell it from one whose
 * session was lost.
 */
import { type Bytes, binaryString, utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { prefixRange } from '../model/range.ts';
import { makeToken, type Token } from '../model/token.ts';
import type { KeyValue } from '../model/transaction.ts';
import { type Authority, parseRecord } from './authority.ts';
import type { Duration } from './duration.ts';
import { type Followed, follow } from './follow.ts';
import { Grant, type GrantParts } from './grant.ts';
import { checkName, claimKeys, ownKey } from './keys.ts';
import { isOurs } from './line.ts';
import type { SessionSource } from './lock.ts';
import type { Session } from './session.ts';

export interface Member {
  /** Unique in the group's history. */
  readonly id: string;
  readonly value: string;
  readonly holder: string | undefined;
  readonly host: string | undefined;
  readonly token: Token;
}

export interface GroupEvent {
  /** `failed`: the member is gone and had not said that it leaves. */
  readonly type: 'joined' | 'changed' | 'left' | 'failed';
  readonly member: Member;
}

export interface JoinOptions {
  readonly value?: string | undefined;
  readonly ttl?: Duration | undefined;
}

export class Group {
  readonly name: string;
  readonly #authority: Authority;
  readonly #sessions: SessionSource;
  readonly #prefix: Bytes;

  constructor(name: string, authority: Authority, sessions: SessionSource) {
    this.name = checkName(name);
    this.#authority = authority;
    this.#sessions = sessions;
    this.#prefix = ownKey(authority.namespace, 'group', name, '');
  }

  async join(options: JoinOptions = {}): Promise<Membership> {
    const session = await this.#sessions(options.ttl);
    const taken = session.takeKey(claimKeys(this.#prefix, session.id));
    const { key } = taken;
    const { engine } = this.#authority;
    const value = record(session, options.value ?? '');
    let sent = 0;
    const answer = await session.call(() => {
      sent++;
      return engine.txn({
        compare: [{ key, target: 'create', result: '=', value: 0 }],
        success: [{ type: 'put', key, value, lease: session.id }],
        failure: [{ type: 'range', key }],
      });
    });
    const [read] = answer.results;
    const present = !answer.succeeded && read?.type === 'range' ? read.kvs[0] : undefined;
    const createRevision = present?.createRevision ?? answer.header.revision;
    const giveBack = async (): Promise<void> => {
      await leave(session, key, createRevision);
      if (sent > 1) session.abandon(key);
      else session.returnKey(taken);
    };
    session.ensureAlive();
    const token = makeToken(answer.header.era, createRevision);
    return new Membership({ name: this.name, session, token, key, createRevision, giveBack });
  }

  async members(): Promise<Member[]> {
    const { kvs, header } = await this.#authority.engine.range(prefixRange(this.#prefix));
    return kvs
      .filter((kv) => !isLeaving(kv))
      .sort((a, b) => a.createRevision - b.createRevision)
      .map((kv) => this.#member(kv, header.era));
  }

  /** A `joined` for everyone who is there, then every change. Ends with `signal`. */
  async *events(
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<GroupEvent, void, undefined> {
    const signal = options.signal ?? new AbortController().signal;
    const present = new Map<string, KeyValue>();
    for await (const change of follow(this.#authority, prefixRange(this.#prefix), signal)) {
      for (const { kv, was } of differences(present, change)) {
        const event = this.#event(kv, was, change.header.era);
        if (event) yield event;
      }
    }
  }

  #event(kv: KeyValue | undefined, was: KeyValue | undefined, era: number): GroupEvent | undefined {
    if (!kv)
      return was && !isLeaving(was)
        ? { type: 'failed', member: this.#member(was, era) }
        : undefined;
    const member = this.#member(kv, era);
    if (isLeaving(kv)) return was && !isLeaving(was) ? { type: 'left', member } : undefined;
    return { type: was ? 'changed' : 'joined', member };
  }

  #member(kv: KeyValue, era: number): Member {
    const fields = parseRecord(kv.value);
    const textOf = (field: unknown): string | undefined =>
      typeof field === 'string' ? field : undefined;
    return {
      id: `${binaryString(kv.key.subarray(this.#prefix.length))}@${kv.createRevision}`,
      value: textOf(fields?.value) ?? '',
      holder: textOf(fields?.holder),
      host: textOf(fields?.host),
      token: makeToken(era, kv.createRevision),
    };
  }
}

/** Being a member; lost like any grant. */
export class Membership extends Grant {
  readonly #parts: GrantParts;

  constructor(parts: GrantParts) {
    super(parts);
    this.#parts = parts;
  }

  /** Changes what the others see of this member. */
  async update(value: string): Promise<void> {
    this.ensureHeld();
    const { session, key, createRevision } = this.#parts;
    const { engine } = session.authority;
    const answer = await session.call(() =>
      engine.txn({
        compare: [isOurs(key, createRevision)],
        success: [{ type: 'put', key, value: record(session, value), lease: session.id }],
      }),
    );
    if (!answer.succeeded) throw new HoldfastError('grant-lost', 'not a member any more');
  }

  /** Idempotent. */
  leave(): Promise<void> {
    return this.release();
  }
}

function record(session: Session, value: string, leaving = false): Bytes {
  return utf8(JSON.stringify({ ...session.identity, value, ...(leaving ? { leaving } : {}) }));
}

function isLeaving(kv: KeyValue): boolean {
  return parseRecord(kv.value)?.leaving === true;
}

async function leave(session: Session, key: Bytes, createRevision: number): Promise<void> {
  const { engine } = session.authority;
  const compare = [isOurs(key, createRevision)];
  const value = record(session, '', true);
  await session.call(() =>
    engine.txn({
      compare: [...compare, { key, target: 'value', result: '!=', value }],
      success: [{ type: 'put', key, value, lease: session.id }],
    }),
  );
  await session.call(() => engine.txn({ compare, success: [{ type: 'delete', key }] }));
}

/** What a change made of each key, with how it stood before; `present` is kept in step. */
function* differences(
  present: Map<string, KeyValue>,
  change: Followed,
): Generator<{ readonly kv: KeyValue | undefined; readonly was: KeyValue | undefined }> {
  if (change.type === 'state') {
    const now = new Map(change.kvs.map((kv) => [binaryString(kv.key), kv]));
    for (const [name, was] of [...present]) {
      if (now.get(name)?.createRevision === was.createRevision) continue;
      present.delete(name);
      yield { kv: undefined, was };
    }
    for (const [name, kv] of now) {
      const was = present.get(name);
      present.set(name, kv);
      if (was?.modRevision !== kv.modRevision) yield { kv, was };
    }
    return;
  }
  for (const { type, kv } of change.events) {
    const name = binaryString(kv.key);
    const was = present.get(name);
    if (type === 'delete') present.delete(name);
    else present.set(name, kv);
    yield { kv: type === 'delete' ? undefined : kv, was };
  }
}
