/**
 * A local copy of the keys below a prefix that follows the authority. It knows the revision it
 * stands at, waits for a revision, and reads anew after a compaction; it never goes back.
 */
import { linkAbort } from '../base/abort.ts';
import { type Bytes, binaryString, utf8 } from '../base/bytes.ts';
import { sleep } from '../base/clock.ts';
import { deferred } from '../base/deferred.ts';
import { abortError, HoldfastError } from '../model/errors.ts';
import { prefixRange } from '../model/range.ts';
import type { KeyValue, Revision } from '../model/transaction.ts';
import type { Watch } from '../model/watch.ts';
import type { Authority } from './authority.ts';
import { follow } from './follow.ts';
import { Interruption } from './interruption.ts';
import { applyTo } from './until.ts';

const PROGRESS_EVERY_MS = 50;

interface Waiter {
  readonly revision: Revision;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class View implements AsyncDisposable {
  readonly #authority: Authority;
  readonly #prefix: Bytes;
  readonly #stop = linkAbort();
  readonly #keys = new Map<string, KeyValue>();
  readonly #waiters = new Set<Waiter>();
  readonly #listeners = new Set<() => void>();
  readonly #running: Promise<void>;
  #revision: Revision = 0;
  #failed: unknown;
  #watch: Watch | undefined;

  constructor(prefix: string | Bytes, authority: Authority) {
    this.#authority = authority;
    this.#prefix = utf8(authority.namespace + (typeof prefix === 'string' ? prefix : ''));
    if (typeof prefix !== 'string') {
      this.#prefix = Uint8Array.of(...utf8(authority.namespace), ...prefix);
    }
    this.#running = this.#run();
  }

  /** The copy holds everything up to this revision; 0 before the first answer. */
  get revision(): Revision {
    return this.#revision;
  }

  get size(): number {
    return this.#keys.size;
  }

  /** By the full key without the namespace. */
  get(key: string | Bytes): KeyValue | undefined {
    const bytes = typeof key === 'string' ? utf8(key) : key;
    return this.#keys.get(binaryString(utf8(this.#authority.namespace)) + binaryString(bytes));
  }

  /** All keys in byte order. */
  entries(): readonly KeyValue[] {
    return [...this.#keys.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, kv]) => kv);
  }

  /** Resolves when the copy stands at `revision` or later (default: when it has been read). */
  async waitFor(
    revision: Revision = 1,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    if (this.#revision >= revision) return;
    if (this.#failed !== undefined) throw this.#failed;
    const { promise, resolve, reject } = deferred<void>();
    const waiter: Waiter = { revision, resolve: () => resolve(undefined), reject };
    this.#waiters.add(waiter);
    const interruption = new Interruption().onSignal(options.signal);
    try {
      await interruption.race(Promise.race([promise, this.#press(waiter)]));
    } finally {
      this.#waiters.delete(waiter);
      interruption.dispose();
    }
  }

  /** Catches up with everything that was committed before the call. */
  async refresh(): Promise<void> {
    const { header } = await this.#authority.engine.range({ key: this.#prefix, countOnly: true });
    await this.waitFor(header.revision);
  }

  /** The copy's revision, each time it changed; quick changes may be told as one. */
  async *changes(
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Revision, void, undefined> {
    let told = 0;
    while (!options.signal?.aborted) {
      if (this.#failed !== undefined) throw this.#failed;
      if (this.#revision > told) {
        told = this.#revision;
        yield told;
        continue;
      }
      const { promise, resolve } = deferred<void>();
      const wake = (): void => resolve(undefined);
      this.#listeners.add(wake);
      options.signal?.addEventListener('abort', wake, { once: true });
      await promise;
      this.#listeners.delete(wake);
      options.signal?.removeEventListener('abort', wake);
    }
  }

  /** A change elsewhere raises the revision without an event here: asks how far the watch is. */
  async #press(waiter: Waiter): Promise<void> {
    while (this.#waiters.has(waiter) && this.#revision < waiter.revision) {
      this.#watch?.requestProgress();
      await sleep(this.#authority.clock, PROGRESS_EVERY_MS);
    }
  }

  async close(): Promise<void> {
    this.#stop.controller.abort(new HoldfastError('closed', 'the view has been closed'));
    await this.#running;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    try {
      const onWatch = (watch: Watch): void => {
        this.#watch = watch;
      };
      const range = prefixRange(this.#prefix);
      for await (const change of follow(this.#authority, range, signal, onWatch)) {
        applyTo(this.#keys, change);
        this.#revision = change.header.revision;
        this.#tell();
      }
      this.#fail(abortError(signal, 'rejected'));
    } catch (error) {
      this.#fail(error);
    }
  }

  #tell(): void {
    for (const waiter of this.#waiters) if (waiter.revision <= this.#revision) waiter.resolve();
    for (const wake of this.#listeners) wake();
  }

  #fail(error: unknown): void {
    this.#failed = error;
    for (const waiter of this.#waiters) waiter.reject(error);
    for (const wake of this.#listeners) wake();
  }
}
