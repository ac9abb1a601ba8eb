/**
 * Where the keys for seals live: one record in the engine itself, under a key no client can name,
 * changed by compare-and-set, so that several servers before one engine seal with the same keys.
 *
 * Each use reads the record anew. A server that went by what it remembers could sign with a key that
 * another one has retired, or thrown away because it was stolen.
 */
import { createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { type Bytes, equalBytes } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import { generateEd25519 } from '../../base/ed25519.ts';
import type { Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { PublicSealKey } from '../../model/seal-keys.ts';
import type { Header } from '../../model/transaction.ts';
import { type MakeAlong, NOTHING_ALONG } from '../audit/along.ts';
import {
  decodeKeyring,
  encodeKeyring,
  isDue,
  type KeyPair,
  type Keyring,
  type Moment,
  newKeyring,
  published,
  rotated,
} from './keyring.ts';

/** Below a zero byte, out of every client's and every tenant's reach: `\0seal`. */
export const SEAL_KEYS_KEY: Bytes = Uint8Array.of(0, 0x73, 0x65, 0x61, 0x6c);

/** Attempts against other servers that change the keys at the same time. */
const CHANGE_ATTEMPTS = 16;

export interface SealKeysOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  /** A key signs for so long, then the next one does. */
  readonly rotateEveryMs: number;
  /** Told that another key signs. */
  readonly onRotate: (keyId: string) => void;
  /** What is stored together with keys that nobody asked to be changed. */
  readonly along?: MakeAlong | undefined;
}

/** A key to sign with, and the era of the tokens it may sign. */
export interface Signer {
  readonly keyId: string;
  /** Its public half, base64url. */
  readonly publicKey: string;
  readonly era: number;
  sign(signed: Bytes): Bytes;
}

interface Stored {
  /** Undefined: nobody has needed keys yet. */
  readonly value: Bytes | undefined;
  /** 0: there is no record. */
  readonly modRevision: number;
  readonly header: Header;
}

type Transition = (stored: Bytes | undefined, moment: Moment) => Keyring;

export class SealKeys {
  readonly #options: SealKeysOptions;
  #prepared: { readonly id: string; readonly key: KeyObject } | undefined;

  constructor(options: SealKeysOptions) {
    this.#options = options;
  }

  /** The key that signs at some moment after this was called. */
  async signer(): Promise<Signer> {
    const keyring = await this.#current();
    const { id, secret, public: publicKey } = keyring.signing;
    if (this.#prepared?.id !== id)
      this.#prepared = { id, key: privateKey(keyring.signing, secret) };
    const { key } = this.#prepared;
    return {
      keyId: id,
      publicKey,
      era: keyring.era,
      sign: (signed) => sign(null, signed, key),
    };
  }

  /** Made with the first question for them, and not before: a store that seals nothing has none. */
  async published(): Promise<PublicSealKey[]> {
    return published(await this.#current(), this.#options.clock.wall());
  }

  /**
   * Signs with the next key from now on. With `discard` all keys are new, and what the old ones
   * signed is void; it is also the way out when their record is damaged.
   */
  async rotate(discard: boolean, along: MakeAlong = NOTHING_ALONG): Promise<Keyring> {
    return this.#change((stored, moment) => {
      const present = discard ? undefined : stored && decodeKeyring(stored);
      return present ? rotated(present, moment, makeKey) : newKeyring(moment, makeKey);
    }, along);
  }

  /** The keys as they are; made when there are none, rotated when it is time. */
  async #current(): Promise<Keyring> {
    let usable: Keyring | undefined;
    try {
      return await this.#change((stored, moment) => {
        const present = stored && decodeKeyring(stored);
        if (!present) return newKeyring(moment, makeKey);
        usable = present.era === moment.era ? present : undefined;
        const due = isDue(present, moment, this.#options.rotateEveryMs);
        return due ? rotated(present, moment, makeKey) : present;
      }, this.#options.along);
    } catch (error) {
      // A full disk or a damaged audit log keeps no holder from sealing: the key goes on meanwhile.
      const { code } = HoldfastError.from(error);
      if (usable && (code === 'no-space' || code === 'corrupt')) return usable;
      throw error;
    }
  }

  async #change(transition: Transition, along: MakeAlong = NOTHING_ALONG): Promise<Keyring> {
    const { engine, clock, onRotate } = this.#options;
    for (let attempt = 0; attempt < CHANGE_ATTEMPTS; attempt++) {
      const { value, modRevision, header } = await this.#read();
      const next = transition(value, { wallMs: clock.wall(), era: header.era });
      const encoded = encodeKeyring(next);
      if (value && equalBytes(encoded, value)) return next;
      const { compare, success } = await along({ subject: next.signing.id });
      const unchanged = { target: 'mod', result: '=', value: modRevision } as const;
      const { succeeded } = await engine.txn({
        compare: [{ key: SEAL_KEYS_KEY, ...unchanged }, ...compare],
        success: [{ type: 'put', key: SEAL_KEYS_KEY, value: encoded }, ...success],
      });
      if (!succeeded) continue;
      onRotate(next.signing.id);
      return next;
    }
    throw new HoldfastError('conflict', 'other servers keep changing the keys; try again');
  }

  async #read(): Promise<Stored> {
    const { kvs, header } = await this.#options.engine.range({ key: SEAL_KEYS_KEY });
    const stored = kvs[0];
    return { header, value: stored?.value, modRevision: stored?.modRevision ?? 0 };
  }
}

/** Named by its own public half: no two keys share an id, whoever made them. */
function makeKey(): KeyPair {
  const pair = generateEd25519();
  return { id: pair.public.slice(0, 16), ...pair };
}

function privateKey({ public: x }: KeyPair, d: string): KeyObject {
  try {
    const key = { kty: 'OKP', crv: 'Ed25519', x, d };
    return createPrivateKey({ key, format: 'jwk' });
  } catch (cause) {
    throw new HoldfastError('corrupt', 'the key for seals is damaged', { cause });
  }
}
