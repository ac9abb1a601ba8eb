/**
 * Guards the names of an S3-like store that honours conditional writes.
 *
 * A name is a small *pointer* object that holds the mark and the key of the content; contents are
 * written once, under keys of their own. A write puts its content, then moves the pointer by
 * compare-and-swap on the pointer's ETag. ETags are hashes of contents and would repeat when a
 * content returns (ABA); a pointer's never does, because every pointer carries the token and a
 * random word. Mark and effect are one object, so they move in one step. A delete leaves the
 * pointer, as a tombstone: the mark outlives the content.
 */
import { toHex } from '../base/bytes.ts';
import type { Random } from '../base/random.ts';
import { systemRandom } from '../base/system.ts';
import { HoldfastError } from '../model/errors.ts';
import { formatToken, parseToken, type Token } from '../model/token.ts';
import type { Rule } from './fence.ts';
import { type Claim, Gate, type GuardOptions, type Mark, type Presented } from './gate.ts';
import { decide } from './marks.ts';
import { ObjectStore, type ObjectStoreOptions, type PutOutcome } from './object-client.ts';

export { type AwsCredentials, awsSigner, type ObjectStoreOptions } from './object-client.ts';

const FORMAT = 'holdfast-pointer-1';
const ATTEMPTS_MAX = 50;
/** For a pointer that moves without its content. */
const KEEP = Symbol('keep');

interface Pointer {
  readonly mark: Mark;
  /** Where the content is; undefined after a delete. */
  readonly content: string | undefined;
  readonly nonce: string;
}

export interface ObjectGuardOptions extends GuardOptions {
  readonly store: ObjectStoreOptions;
  readonly random?: Random;
  /** Before the keys of contents; by default `.holdfast/`. */
  readonly prefix?: string;
}

export class ObjectGuard {
  readonly #store: ObjectStore;
  readonly #gate: Gate;
  readonly #random: Random;
  readonly #prefix: string;

  private constructor(store: ObjectStore, options: ObjectGuardOptions) {
    this.#store = store;
    this.#gate = new Gate('object', options);
    this.#random = options.random ?? systemRandom;
    this.#prefix = options.prefix ?? '.holdfast/';
  }

  /** Errors: `guard-unfit` when the store ignores conditions, which is what some do in silence. */
  static async open(options: ObjectGuardOptions): Promise<ObjectGuard> {
    const guard = new ObjectGuard(new ObjectStore(options.store), options);
    await guard.#probe();
    return guard;
  }

  /** Errors: `stale`; `conflict` when others are faster again and again; `unavailable`. */
  async write(
    as: Presented,
    name: string,
    data: Uint8Array | string,
    { rule = 'reign' }: { readonly rule?: Rule } = {},
  ): Promise<void> {
    await this.#gate.ready(as);
    const claim = this.#gate.read(as, name);
    await this.#readAndCompare(claim, rule);
    const nonce = this.#nonce();
    const content = `${this.#prefix}${name}/${formatToken(claim.token)}-${nonce}`;
    const body = typeof data === 'string' ? Buffer.from(data) : data;
    await this.#putContent(content, body);
    try {
      await this.#move(claim, rule, content, nonce);
    } catch (error) {
      // Unless the pointer may hold it after all.
      if (HoldfastError.is(error) && error.outcome === 'rejected') await this.#discard(content);
      throw error;
    }
  }

  async delete(as: Presented, name: string): Promise<void> {
    await this.#gate.ready(as);
    const claim = this.#gate.read(as, name);
    await this.#move(claim, 'reign', undefined, this.#nonce());
  }

  /**
   * Raises the mark of a name and leaves its content: from then on nobody older writes it. Whoever
   * reads what he is going to change begins with this.
   */
  async admit(as: Presented, name: string): Promise<void> {
    await this.#gate.ready(as);
    await this.#move(this.#gate.read(as, name), 'reign', KEEP, this.#nonce());
  }

  /** The content, or undefined; with the token it was written under. */
  async read(name: string): Promise<{ readonly data: Buffer; readonly token: Token } | undefined> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const pointer = await this.#pointer(name);
      if (!pointer?.content) return undefined;
      const found = await this.#store.get(pointer.content);
      if (found) return { data: found.body, token: pointer.mark.token };
      // Replaced between the two reads: the pointer has moved.
    }
    throw contended(name);
  }

  async mark(name: string): Promise<Token> {
    return (await this.#pointer(name))?.mark.token ?? 0n;
  }

  async #move(
    claim: Claim,
    rule: Rule,
    content: string | typeof KEEP | undefined,
    nonce: string,
  ): Promise<void> {
    /** The tag an attempt without an answer was made on. */
    let doubtful: string | undefined;
    let uncertain = false;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const present = await this.#pointer(claim.resource);
      if (present?.nonce === nonce) {
        // An attempt whose answer was lost has succeeded.
        this.#gate.admitted(claim);
        return;
      }
      const verdict = decide(present?.mark, claim, rule, this.#gate.clock.wall());
      if (!verdict.admitted) throw this.#refused(claim, verdict.mark, uncertain);
      // Moved since: ours may have been in between, and must not be made a second time.
      if (uncertain && present?.etag !== doubtful) throw contended(claim.resource, 'unknown');
      const outcome = await this.#putPointer(claim.resource, present?.etag, {
        mark: verdict.mark,
        content: content === KEEP ? present?.content : content,
        nonce,
      });
      if (outcome === 'done') {
        this.#gate.admitted(claim);
        if (present?.content && content !== KEEP) await this.#discard(present.content);
        return;
      }
      if (outcome === 'unknown') {
        uncertain = true;
        doubtful = present?.etag;
      }
    }
    throw contended(claim.resource, uncertain ? 'unknown' : 'rejected');
  }

  /** Refused now; but an attempt without an answer may have happened before the newer one. */
  #refused(claim: Claim, mark: Mark, uncertain: boolean): HoldfastError {
    const error = this.#gate.refused(claim, mark);
    if (!uncertain) return error;
    return new HoldfastError('stale', error.message, { ...error.details, outcome: 'unknown' });
  }

  async #readAndCompare(claim: Claim, rule: Rule): Promise<void> {
    const present = await this.#pointer(claim.resource);
    const { admitted, mark } = decide(present?.mark, claim, rule, this.#gate.clock.wall());
    if (!admitted) throw this.#gate.refused(claim, mark);
  }

  async #putContent(key: string, body: Uint8Array): Promise<void> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const outcome = await this.#attempt(key, body, { ifNoneMatch: '*' });
      // The key is ours alone, so `refused` means that an attempt without an answer has succeeded.
      if (outcome === 'done' || outcome === 'refused') return;
    }
    throw new HoldfastError('unavailable', 'the content could not be stored');
  }

  async #putPointer(
    name: string,
    etag: string | undefined,
    pointer: Pointer,
  ): Promise<PutOutcome | 'unknown'> {
    const { token, holder, atMs } = pointer.mark;
    const { content, nonce } = pointer;
    const stored = { format: FORMAT, token: formatToken(token), holder, atMs, content, nonce };
    const body = Buffer.from(JSON.stringify(stored));
    const condition = etag === undefined ? ({ ifNoneMatch: '*' } as const) : { ifMatch: etag };
    return await this.#attempt(name, body, condition);
  }

  async #attempt(...args: Parameters<ObjectStore['put']>): Promise<PutOutcome | 'unknown'> {
    try {
      return await this.#store.put(...args);
    } catch (error) {
      if (HoldfastError.is(error) && error.outcome === 'unknown') return 'unknown';
      throw error;
    }
  }

  async #pointer(name: string): Promise<(Pointer & { readonly etag: string }) | undefined> {
    const found = await this.#store.get(name);
    if (!found) return undefined;
    try {
      const stored = JSON.parse(found.body.toString()) as Record<string, unknown>;
      if (stored.format === FORMAT) {
        const { holder, atMs, content, nonce } = stored as Partial<Record<string, string>> & {
          atMs?: number;
        };
        const mark = { token: parseToken(stored.token), holder, atMs };
        return { mark, content, nonce: nonce ?? '', etag: found.etag };
      }
    } catch {
      // Told below.
    }
    throw new HoldfastError('guard-unfit', `${name} is an object of its own, not a guarded name`);
  }

  /** What nothing points to any more. It costs space, never correctness, so failures are let be. */
  async #discard(content: string): Promise<void> {
    await this.#store.delete(content).catch(() => {});
  }

  #nonce(): string {
    return toHex(this.#random.bytes(16));
  }

  async #probe(): Promise<void> {
    const key = `${this.#prefix}probe-${this.#nonce()}`;
    const put = (body: string, condition: Parameters<ObjectStore['put']>[2]): Promise<PutOutcome> =>
      this.#store.put(key, Buffer.from(body), condition);
    try {
      if ((await put('0', { ifMatch: '"0"' })) === 'done') {
        throw unfit('it honoured If-Match on an object that is not there');
      }
      if ((await put('1', { ifNoneMatch: '*' })) !== 'done') throw unfit('it refused a new object');
      if ((await put('2', { ifNoneMatch: '*' })) === 'done') {
        throw unfit('it ignores If-None-Match: a second create-only write passed');
      }
      const etag = (await this.#store.get(key))?.etag;
      if (!etag) throw unfit('it gives no ETag');
      if ((await put('3', { ifMatch: '"0123456789abcdef0123456789abcdef"' })) === 'done') {
        throw unfit('it ignores If-Match: a write with a wrong tag passed');
      }
      if ((await put('4', { ifMatch: etag })) !== 'done') throw unfit('it refused the right tag');
      if ((await put('5', { ifMatch: etag })) === 'done') throw unfit('an old tag still matches');
      if ((await this.#store.get(key))?.body.toString() !== '4') throw unfit('reads are not exact');
    } finally {
      await this.#discard(key);
    }
  }
}

function unfit(why: string): HoldfastError {
  return new HoldfastError('guard-unfit', `this object store cannot be guarded: ${why}`);
}

function contended(name: string, outcome: 'rejected' | 'unknown' = 'rejected'): HoldfastError {
  return new HoldfastError('conflict', `others were faster at ${name} again and again`, {
    outcome,
  });
}
