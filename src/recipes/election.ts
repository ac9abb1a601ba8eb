/**
 * Election: candidates stand in a line, the first one leads. The keys are etcd's, so `etcdctl
 * elect` and Go's `concurrency.Election` take part; the key's value is what the leader proclaims.
 *
 * Who waited reads its own key again before it believes that it leads. Terms are create revisions,
 * so they only rise; an observer never tells an older term after a newer one.
 *
 * Priority and transfer reorder the waiting candidates of ours by moving a claim to the end: its
 * key is deleted and made anew under the same lease, one claim per transaction, so that no two
 * claims ever share a revision. Claims of foreign clients are never moved.
 */
import { type Bytes, binaryString, concatBytes, EMPTY, equalBytes, utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { prefixRange } from '../model/range.ts';
import { makeToken, type Token } from '../model/token.ts';
import type { Header, KeyValue, Operation, Revision } from '../model/transaction.ts';
import { type Authority, parseRecord } from './authority.ts';
import { type Duration, milliseconds } from './duration.ts';
import { type Followed, follow } from './follow.ts';
import { Grant } from './grant.ts';
import { Interruption } from './interruption.ts';
import { checkName, claimKeys, linePrefix, ownKey, standsIn } from './keys.ts';
import { confirm, enter, findBefore, isOurs, lineOf, waitForTurn } from './line.ts';
import { runHolding, type SessionSource } from './lock.ts';
import type { Session } from './session.ts';
import type { TakenKey } from './slots.ts';

export interface CampaignOptions {
  /** What observers see; `proclaim` changes it. */
  readonly value?: string | Bytes | undefined;
  /** The name by which `transfer` finds this candidate. Default: the holder's name. */
  readonly candidate?: string | undefined;
  /** A higher one goes before waiting candidates with a lower one. Default 0. */
  readonly priority?: number | undefined;
  readonly ttl?: Duration | undefined;
  readonly wait?: Duration | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Leader {
  readonly key: Bytes;
  readonly value: Bytes;
  /** The leader's token; one per term, rising. */
  readonly token: Token;
}

interface Candidate {
  readonly kv: KeyValue;
  readonly name: string;
  readonly priority: number;
}

export class Election {
  readonly name: string;
  readonly #sessions: SessionSource;

  constructor(name: string, sessions: SessionSource) {
    this.name = checkName(name);
    this.#sessions = sessions;
  }

  /** Waits until this candidate leads. */
  async campaign(options: CampaignOptions = {}): Promise<Leadership> {
    const session = await this.#sessions(options.ttl);
    return await new Campaign(this.name, session, options).run();
  }

  /** Leads while `work` runs; see `Lock.run`. */
  async run<T>(
    work: (leadership: Leadership) => T | Promise<T>,
    options: CampaignOptions = {},
  ): Promise<T> {
    return await runHolding(await this.campaign(options), work);
  }

  async leader(): Promise<Leader | undefined> {
    const session = await this.#sessions();
    const { prefix } = lineIn(session, this.name);
    const { engine } = session.authority;
    const { kvs, header } = await session.call(() =>
      engine.range({ ...prefixRange(prefix), sortTarget: 'create', sortOrder: 'ascend' }),
    );
    const first = kvs.find((kv) => standsIn(prefix, kv.key));
    return first && leaderOf(first, header);
  }

  /**
   * The leader as it is now, then every change of leader or of what it proclaims; `undefined` while
   * nobody leads. Values that a leader replaced quickly may be skipped. Ends with `signal`.
   */
  async *observe(
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Leader | undefined, void, undefined> {
    const session = await this.#sessions();
    const controller = new AbortController();
    const signal = options.signal ?? controller.signal;
    const { prefix } = lineIn(session, this.name);
    const claims = new Map<string, KeyValue>();
    let newest: Token = 0n;
    let told: Leader | undefined | null = null;
    for await (const change of follow(session.authority, prefixRange(prefix), signal)) {
      apply(claims, change, prefix);
      const first = [...claims.values()].sort((a, b) => a.createRevision - b.createRevision)[0];
      const leader = first && leaderOf(first, change.header);
      if (leader && leader.token < newest) continue;
      if (leader) newest = leader.token;
      if (told !== null && same(told, leader)) continue;
      told = leader;
      yield leader;
    }
  }
}

function lineIn(session: Session, name: string) {
  return lineOf(session, linePrefix(session.authority.namespace, name), { marked: false });
}

function leaderOf(kv: KeyValue, header: Header): Leader {
  return { key: kv.key, value: kv.value, token: makeToken(header.era, kv.createRevision) };
}

function same(a: Leader | undefined, b: Leader | undefined): boolean {
  if (!a || !b) return a === b;
  return a.token === b.token && equalBytes(a.value, b.value);
}

function apply(claims: Map<string, KeyValue>, change: Followed, prefix: Bytes): void {
  if (change.type === 'state') {
    claims.clear();
    for (const kv of change.kvs) if (standsIn(prefix, kv.key)) claims.set(binaryString(kv.key), kv);
    return;
  }
  for (const { type, kv } of change.events) {
    if (!standsIn(prefix, kv.key)) continue;
    if (type === 'delete') claims.delete(binaryString(kv.key));
    else claims.set(binaryString(kv.key), kv);
  }
}

/** Being the leader; a grant that can also speak to its observers and choose its successor. */
export class Leadership extends Grant {
  readonly #campaign: Campaign;

  constructor(parts: ConstructorParameters<typeof Grant>[0], campaign: Campaign) {
    super(parts);
    this.#campaign = campaign;
  }

  /** Changes what observers see. */
  async proclaim(value: string | Bytes): Promise<void> {
    this.ensureHeld();
    await this.#campaign.proclaim(bytesOf(value));
  }

  /** Gives up the leadership; the next in line leads. Idempotent. */
  resign(): Promise<void> {
    return this.release();
  }

  /** Gives up the leadership so that the named candidate, which must be waiting, leads next. */
  async transfer(candidate: string): Promise<void> {
    this.ensureHeld();
    await this.#campaign.clearTheWayFor(candidate);
    await this.release();
  }
}

function bytesOf(value: string | Bytes | undefined): Bytes {
  return typeof value === 'string' ? utf8(value) : (value ?? EMPTY);
}

/** One candidacy from its first request on. */
class Campaign {
  readonly #name: string;
  readonly #session: Session;
  readonly #options: CampaignOptions;
  readonly #prefix: Bytes;
  readonly #base: Bytes;
  readonly #taken: TakenKey;
  #key: Bytes;
  #createRevision: Revision = 0;
  #doubtful = false;

  constructor(name: string, session: Session, options: CampaignOptions) {
    this.#name = name;
    this.#session = session;
    this.#options = options;
    this.#prefix = linePrefix(session.authority.namespace, name);
    this.#taken = session.takeKey(claimKeys(this.#prefix, session.id));
    this.#base = this.#taken.key;
    this.#key = this.#taken.key;
  }

  async run(): Promise<Leadership> {
    const session = this.#session;
    const interruption = this.#interruption();
    try {
      const header = await this.#stand(interruption);
      interruption.throwIfInterrupted();
      session.ensureAlive();
      return new Leadership(
        {
          name: this.#name,
          session,
          token: makeToken(header.era, this.#createRevision),
          key: this.#key,
          createRevision: this.#createRevision,
          giveBack: () => this.#giveBack(),
        },
        this,
      );
    } catch (error) {
      this.#abandon();
      throw error;
    } finally {
      interruption.dispose();
    }
  }

  /** Compares the key's revision too: a proclamation that arrives late must not undo a newer one. */
  async proclaim(value: Bytes): Promise<void> {
    const session = this.#session;
    const { engine } = session.authority;
    const key = this.#key;
    let { kvs } = await session.call(() => engine.range({ key }));
    let sent = 0;
    for (;;) {
      const present = kvs[0];
      if (present?.createRevision !== this.#createRevision) {
        throw new HoldfastError('not-leader', `"${this.#name}": not the leader any more`);
      }
      if (sent > 0 && equalBytes(present.value, value)) return;
      const answer = await session.call(() => {
        sent++;
        return engine.txn({
          compare: [
            isOurs(key, this.#createRevision),
            { key, target: 'mod', result: '=', value: present.modRevision },
          ],
          success: [{ type: 'put', key, value, lease: session.id }],
          failure: [{ type: 'range', key }],
        });
      });
      if (answer.succeeded) return;
      const [read] = answer.results;
      kvs = read?.type === 'range' ? read.kvs : [];
    }
  }

  /** Moves everyone who waits before the candidate behind it. */
  async clearTheWayFor(name: string): Promise<void> {
    const waiting = (await this.#candidates()).filter(
      ({ kv }) => kv.createRevision > this.#createRevision,
    );
    const at = waiting.findIndex((candidate) => candidate.name === name);
    if (at < 0) throw new HoldfastError('invalid-argument', `no candidate "${name}" is waiting`);
    for (const { kv } of waiting.slice(0, at)) await move(this.#session, this.#prefix, kv);
    const target = waiting[at]!.kv.createRevision;
    const between = await findBefore(
      lineOf(this.#session, this.#prefix, { marked: false }),
      target,
    );
    if (between && between.createRevision > this.#createRevision) {
      throw new HoldfastError('conflict', `a candidate of another client stands before "${name}"`);
    }
  }

  async #stand(interruption: Interruption): Promise<Header> {
    const session = this.#session;
    const line = lineOf(session, this.#prefix, { marked: false });
    const value = bytesOf(this.#options.value);
    const put: Operation = { type: 'put', key: this.#base, value, lease: session.id };
    const writes = [put, this.#card()];
    const entry = { key: this.#base, hold: writes, wait: writes, join: true };
    const place = await enter(line, entry, interruption);
    if ('taken' in place) throw new Error('a candidate always joins the line');
    this.#createRevision = place.createRevision;
    this.#doubtful = place.doubtful;
    if (place.first) return place.header;
    if (this.#priority > 0 && place.before) await this.#overtake(interruption);
    let { before } = place;
    for (;;) {
      const here = { ...place, key: this.#key, createRevision: this.#createRevision, before };
      if (before) await waitForTurn(line, here, { interruption });
      try {
        return await confirm(session, here, [], interruption);
      } catch (error) {
        if (!HoldfastError.is(error, 'grant-lost') || !(await this.#findMoved(interruption))) {
          throw error;
        }
      }
      before = await findBefore(line, this.#createRevision, undefined, interruption);
    }
  }

  /** Whoever waits with a lower priority goes behind this candidate; the leader stays. */
  async #overtake(interruption: Interruption): Promise<void> {
    const candidates = await this.#candidates(interruption);
    for (const { kv, priority } of candidates.slice(1)) {
      const before = kv.createRevision < this.#createRevision;
      if (before && priority < this.#priority) await move(this.#session, this.#prefix, kv);
    }
  }

  /** Our own claim after somebody moved it. */
  async #findMoved(interruption: Interruption): Promise<boolean> {
    const { engine } = this.#session.authority;
    const { kvs } = await this.#session.call(
      () => engine.range(prefixRange(concatBytes(this.#base, utf8('~')))),
      interruption,
    );
    const moved = kvs.find((kv) => kv.lease === this.#session.id);
    if (!moved) return false;
    this.#key = moved.key;
    this.#createRevision = moved.createRevision;
    return true;
  }

  /** Our candidates in line order; claims of foreign clients have no card and are left out. */
  async #candidates(interruption?: Interruption): Promise<Candidate[]> {
    const { engine, namespace } = this.#session.authority;
    const cards = prefixRange(ownKey(namespace, 'candidate', this.#name, ''));
    const answer = await this.#session.call(
      () =>
        engine.txn({
          success: [
            {
              ...prefixRange(this.#prefix),
              type: 'range',
              sortTarget: 'create',
              sortOrder: 'ascend',
            },
            { ...cards, type: 'range' },
          ],
        }),
      interruption,
    );
    const [line, known] = answer.results.map((result) =>
      result.type === 'range' ? result.kvs : [],
    );
    const byClaim = new Map<string, Readonly<Record<string, unknown>>>();
    for (const card of known ?? []) {
      const record = parseRecord(card.value);
      if (typeof record?.claim === 'string') byClaim.set(record.claim, record);
    }
    return (line ?? []).flatMap((kv): Candidate[] => {
      const card = byClaim.get(claimName(this.#prefix, kv.key));
      if (!card || !standsIn(this.#prefix, kv.key)) return [];
      return [{ kv, name: String(card.candidate), priority: Number(card.priority) }];
    });
  }

  get #priority(): number {
    return this.#options.priority ?? 0;
  }

  /** What is known of a candidate beside its claim, whose value belongs to the user. */
  #card(): Operation {
    const { namespace } = this.#session.authority;
    const { identity } = this.#session;
    const claim = claimName(this.#prefix, this.#base);
    const record = {
      ...identity,
      claim,
      candidate: this.#options.candidate ?? identity.holder,
      priority: this.#priority,
    };
    return {
      type: 'put',
      key: ownKey(namespace, 'candidate', this.#name, claim),
      value: utf8(JSON.stringify(record)),
      lease: this.#session.id,
    };
  }

  #interruption(): Interruption {
    const { clock } = this.#session.authority;
    const { signal, wait } = this.#options;
    const interruption = new Interruption()
      .onSignal(signal)
      .on((fail) => this.#session.onLoss(fail));
    if (wait === undefined) return interruption;
    const waitMs = milliseconds(wait, 'wait');
    return interruption.onTime(
      clock,
      clock.now() + waitMs,
      () => new HoldfastError('not-acquired', `"${this.#name}": not elected within ${waitMs} ms`),
    );
  }

  async #giveBack(): Promise<void> {
    const { engine, namespace } = this.#session.authority;
    const claim = claimName(this.#prefix, this.#base);
    await this.#session.call(() =>
      engine.txn({
        compare: [isOurs(this.#key, this.#createRevision)],
        success: [
          { type: 'delete', key: this.#key },
          { type: 'delete', key: ownKey(namespace, 'candidate', this.#name, claim) },
        ],
      }),
    );
    this.#forget(this.#doubtful);
  }

  /** The claim may have been moved or not have arrived yet: all its forms are swept. */
  #abandon(): void {
    if (this.#session.alive) this.#forget(true);
  }

  #forget(doubtful: boolean): void {
    const session = this.#session;
    if (!doubtful) session.returnKey(this.#taken);
    else session.abandon(this.#base, concatBytes(this.#base, utf8('~')));
  }
}

/** `7a3f-1` of `jobs/7a3f-1` and of its moved form `jobs/7a3f-1~12`. */
function claimName(prefix: Bytes, key: Bytes): string {
  return binaryString(key.subarray(prefix.length)).replace(/~.*$/, '');
}

/** Puts one waiting claim at the end of the line. A claim that changed meanwhile is left alone. */
async function move(session: Session, prefix: Bytes, kv: KeyValue): Promise<void> {
  const { engine }: Authority = session.authority;
  const name = claimName(prefix, kv.key);
  const key = concatBytes(prefix, utf8(`${name}~${kv.createRevision}`));
  await session.call(() =>
    engine.txn({
      compare: [{ key: kv.key, target: 'mod', result: '=', value: kv.modRevision }],
      success: [
        { type: 'delete', key: kv.key },
        { type: 'put', key, value: kv.value, lease: kv.lease },
      ],
    }),
  );
}
