/**
 * The keys that tokens are sealed with, as a value. Pure: time and new keys are arguments.
 *
 *   signing   its secret signs; for one era only
 *   next      already published, so that guards know it before it signs
 *   retired   public keys alone, published until all that they signed has expired
 *
 * A key never outlives the era it was made in. A copy of a store, restored elsewhere, has a higher
 * era and so keys of its own: what it seals is nothing to the guards of the original.
 */
import { type Bytes, text, utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { isKeyId, SEAL_LIFE_MS_MAX } from '../../model/seal.ts';
import type { PublicSealKey } from '../../model/seal-keys.ts';

export interface KeyPair extends PublicSealKey {
  readonly secret: string;
}

export interface RetiredKey extends PublicSealKey {
  /** On the wall clock; afterwards nothing of its making can hold. */
  readonly untilMs: number;
}

export interface Keyring {
  readonly signing: KeyPair;
  readonly next: KeyPair;
  readonly retired: readonly RetiredKey[];
  readonly era: number;
  /** When `signing` began, on the wall clock. */
  readonly sinceMs: number;
}

export interface Moment {
  readonly wallMs: number;
  readonly era: number;
}

export type MakeKey = () => KeyPair;

/** How far the wall clocks of servers before one store may be apart. */
const CLOCKS_APART_MS_MAX = 3_600_000;
/** More than these within their time, and the oldest are published no longer. */
const RETIRED_MAX = 100;

export function newKeyring({ wallMs, era }: Moment, make: MakeKey): Keyring {
  return { signing: make(), next: make(), retired: [], era, sinceMs: wallMs };
}

/** The next key signs; the former one's secret is forgotten. */
export function rotated(keyring: Keyring, moment: Moment, make: MakeKey): Keyring {
  const { wallMs, era } = moment;
  const { id, public: x } = keyring.signing;
  const untilMs = wallMs + SEAL_LIFE_MS_MAX + CLOCKS_APART_MS_MAX;
  return {
    // Whoever has a copy from an older era has its next key too.
    signing: era > keyring.era ? make() : keyring.next,
    next: make(),
    retired: [
      { id, public: x, untilMs },
      ...keyring.retired.filter((key) => key.untilMs > wallMs).slice(0, RETIRED_MAX - 1),
    ],
    era: Math.max(era, keyring.era),
    sinceMs: wallMs,
  };
}

export function isDue(keyring: Keyring, { wallMs, era }: Moment, everyMs: number): boolean {
  return era > keyring.era || wallMs - keyring.sinceMs >= everyMs;
}

/** What guards may know, the signing key first. */
export function published({ signing, next, retired }: Keyring, wallMs: number): PublicSealKey[] {
  const still = retired.filter(({ untilMs }) => untilMs > wallMs);
  return [signing, next, ...still].map(({ id, public: x }) => ({ id, public: x }));
}

export function encodeKeyring(keyring: Keyring): Bytes {
  return utf8(JSON.stringify(keyring));
}

/** Damaged keys are refused and never replaced: seals that hold would stop holding. */
export function decodeKeyring(stored: Bytes): Keyring {
  try {
    return checked(JSON.parse(text(stored)) as Keyring);
  } catch (cause) {
    throw new HoldfastError('corrupt', 'the record of the keys for seals is damaged', { cause });
  }
}

function checked({ signing, next, retired, era, sinceMs }: Keyring): Keyring {
  const isPublic = (key: PublicSealKey): boolean =>
    isKeyId(key.id) && typeof key.public === 'string';
  const isPair = (key: KeyPair): boolean => isPublic(key) && typeof key.secret === 'string';
  const isRetired = (key: RetiredKey): boolean => isPublic(key) && Number.isFinite(key.untilMs);
  if (!isPair(signing) || !isPair(next) || !retired.every(isRetired)) {
    throw new TypeError('a key is not one');
  }
  if (!Number.isSafeInteger(era) || !Number.isFinite(sinceMs)) throw new TypeError('not a keyring');
  return { signing, next, retired, era, sinceMs };
}
