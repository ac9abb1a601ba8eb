/**
 * The public keys of an authority, fetched where it publishes them and kept.
 *
 * They are fetched again when they are old, and when a seal names a key that is not among them; how
 * often is bounded, so that nobody can make a guard flood its authority with invented key ids. An
 * authority that cannot be reached stops no guard that knows its keys, for `keepMs` at most.
 */
import type { KeyObject } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { systemClock } from '../base/system.ts';
import { HoldfastError } from '../model/errors.ts';
import { keyIdOf } from '../model/seal.ts';
import { type PublicSealKey, readSealKeys, SEAL_KEYS_PATH } from '../model/seal-keys.ts';
import { type SealKeySet, sealKeySet } from './seal.ts';

export interface FetchSealKeysOptions {
  /** A copy of the keys, to begin without a connection. */
  readonly initial?: readonly PublicSealKey[] | undefined;
  /** Keys older than this are fetched again before they are used. @default what the server says */
  readonly maxAgeMs?: number | undefined;
  /** At most one fetch in this time. @default 5,000 */
  readonly retryMs?: number | undefined;
  /** After so long without an answer from the authority its keys do not count any more. @default 1 day */
  readonly keepMs?: number | undefined;
  /** @default 2,000 */
  readonly timeoutMs?: number | undefined;
  /** Take keys over plain HTTP from another machine: who is in between can put in his own. */
  readonly insecure?: boolean | undefined;
  readonly fetch?: typeof globalThis.fetch | undefined;
  readonly clock?: Clock | undefined;
}

const MAX_AGE_MS = 300_000;
const MAX_AGE_MS_MAX = 3_600_000;
const RETRY_MS = 5_000;
const KEEP_MS = 86_400_000;
const TIMEOUT_MS = 2_000;
const DOCUMENT_BYTES_MAX = 65_536;
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/**
 * Keys of the authority at `url`, an address of its server or the whole address of the keys.
 * Errors: `unavailable` when they cannot be fetched and there is no copy to begin with.
 */
export async function fetchSealKeys(
  url: string,
  options: FetchSealKeysOptions = {},
): Promise<FetchedSealKeys> {
  const keys = new FetchedSealKeys(keysAddress(url, options.insecure === true), options);
  const failure = await keys.refresh();
  if (failure && !options.initial) throw failure;
  return keys;
}

function keysAddress(url: string, insecure: boolean): URL {
  const address = URL.canParse(url) ? new URL(url) : undefined;
  if (!address || !/^https?:$/.test(address.protocol)) {
    throw new HoldfastError('invalid-argument', `${JSON.stringify(url)} is not an http address`);
  }
  if (address.protocol === 'http:' && !LOOPBACK.test(address.hostname) && !insecure) {
    throw new HoldfastError(
      'invalid-argument',
      `keys from ${address.host} over plain HTTP could be anybody's: use https, or say insecure`,
    );
  }
  if (address.pathname === '/') address.pathname = SEAL_KEYS_PATH;
  return address;
}

export class FetchedSealKeys implements SealKeySet {
  readonly signer = undefined;
  readonly #address: URL;
  readonly #options: FetchSealKeysOptions;
  readonly #clock: Clock;
  #verifiers: ReadonlyMap<string, KeyObject>;
  #maxAgeMs = 0;
  #fetchedAtMs: number;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #failure: HoldfastError | undefined;
  #refreshing: Promise<HoldfastError | undefined> | undefined;

  constructor(address: URL, options: FetchSealKeysOptions) {
    this.#address = address;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#verifiers = sealKeySet(options.initial ?? []).verifiers;
    this.#fetchedAtMs = this.#clock.now();
  }

  get verifiers(): ReadonlyMap<string, KeyObject> {
    return this.#verifiers;
  }

  /**
   * Makes sure that the keys are fit to judge this seal, which may take one fetch. Errors:
   * `unavailable` when the key is unknown, or all are too old, and the authority does not answer.
   */
  async ready(sealed: string): Promise<void> {
    const keyId = keyIdOf(sealed);
    if (keyId === undefined) return;
    const ageMs = this.#clock.now() - this.#fetchedAtMs;
    if (this.#verifiers.has(keyId) && ageMs < this.#maxAgeMs) return;
    const sinceMs = this.#clock.now() - this.#triedAtMs;
    const due = sinceMs >= (this.#options.retryMs ?? RETRY_MS);
    const failure = due || this.#refreshing ? await this.refresh() : this.#failure;
    if (!failure) return;
    const tooOld = ageMs >= (this.#options.keepMs ?? KEEP_MS);
    if (tooOld || !this.#verifiers.has(keyId)) throw failure;
  }

  /** Fetches the keys now; answers what went wrong. Calls at the same time share one fetch. */
  refresh(): Promise<HoldfastError | undefined> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refresh(): Promise<HoldfastError | undefined> {
    const startedAtMs = this.#clock.now();
    this.#triedAtMs = startedAtMs;
    try {
      const { verifiers, maxAgeMs } = await this.#fetch();
      this.#verifiers = verifiers;
      this.#maxAgeMs = this.#options.maxAgeMs ?? maxAgeMs;
      this.#fetchedAtMs = startedAtMs;
      this.#failure = undefined;
    } catch (cause) {
      const { message } = HoldfastError.from(cause);
      this.#failure = new HoldfastError(
        'unavailable',
        `cannot get the authority's keys from ${this.#address.href}: ${message}`,
        { cause },
      );
    }
    return this.#failure;
  }

  async #fetch(): Promise<{ verifiers: ReadonlyMap<string, KeyObject>; maxAgeMs: number }> {
    const { fetch = globalThis.fetch, timeoutMs = TIMEOUT_MS } = this.#options;
    const over = new AbortController();
    const cancel = this.#clock.wakeAt(this.#clock.now() + timeoutMs, () =>
      over.abort(new HoldfastError('deadline-exceeded', 'no answer came in time')),
    );
    try {
      // Keys are taken from where they were asked for and from nowhere else.
      const response = await fetch(this.#address, { redirect: 'error', signal: over.signal });
      if (!response.ok) {
        await response.body?.cancel();
        throw new HoldfastError('unavailable', `it answered with status ${response.status}`);
      }
      const { verifiers } = sealKeySet(readSealKeys(await bounded(response)));
      return { verifiers, maxAgeMs: maxAgeOf(response.headers.get('cache-control')) };
    } finally {
      cancel();
    }
  }
}

async function bounded(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    length += part.length;
    if (length > DOCUMENT_BYTES_MAX) {
      throw new HoldfastError('invalid-argument', 'this is too long for a set of keys');
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

function maxAgeOf(cacheControl: string | null): number {
  const seconds = /(?:^|[,\s])max-age=(\d{1,9})/.exec(cacheControl ?? '')?.[1];
  const stated = seconds === undefined ? MAX_AGE_MS : Number(seconds) * 1_000;
  return Math.min(stated, MAX_AGE_MS_MAX);
}
