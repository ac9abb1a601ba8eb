/**
 * Where users and roles live: one record in the engine itself, under a key no client can name.
 * Changed by compare-and-set, so several servers before one engine agree; followed by a watch.
 */
import { type Bytes, fromBinaryString, text, toHex, utf8 } from '../../base/bytes.ts';
import type { Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import { type MakeAlong, NOTHING_ALONG } from '../audit/along.ts';
import type { Permission } from './permission.ts';
import { type AccessState, NO_ACCESS_CONTROL, type User } from './users.ts';

/** Attempts against other servers that change users at the same time. */
const CHANGE_ATTEMPTS = 16;

export class AccessStore {
  readonly #engine: Engine;
  readonly #key: Bytes;
  #state: AccessState;
  #modRevision: number;
  readonly #listeners = new Set<(state: AccessState) => Promise<void>>();

  static async open(engine: Engine, key: Bytes): Promise<AccessStore> {
    const store = new AccessStore(engine, key);
    await store.reload();
    return store;
  }

  private constructor(engine: Engine, key: Bytes) {
    this.#engine = engine;
    this.#key = key;
    this.#state = NO_ACCESS_CONTROL;
    this.#modRevision = 0;
  }

  get state(): AccessState {
    return this.#state;
  }

  get modRevision(): number {
    return this.#modRevision;
  }

  /** Called after each change and awaited before the change is answered. */
  onChange(listener: (state: AccessState) => Promise<void>): void {
    this.#listeners.add(listener);
  }

  /**
   * Applies a pure change; what it refuses is refused, and nothing is stored. Stored with it is what
   * `along` makes for each attempt.
   */
  async change(
    transition: (state: AccessState) => AccessState,
    along: MakeAlong = NOTHING_ALONG,
  ): Promise<AccessState> {
    for (let attempt = 0; attempt < CHANGE_ATTEMPTS; attempt++) {
      const next = transition(this.#state);
      if (next === this.#state) return next;
      const { compare, success } = await along();
      const unchanged = { target: 'mod', result: '=', value: this.#modRevision } as const;
      const { succeeded, header } = await this.#engine.txn({
        compare: [{ key: this.#key, ...unchanged }, ...compare],
        success: [{ type: 'put', key: this.#key, value: encode(next) }, ...success],
      });
      if (succeeded) {
        await this.#adopt(next, header.revision);
        return next;
      }
      await this.reload();
    }
    throw new HoldfastError('conflict', 'other servers keep changing users and roles; try again');
  }

  async reload(): Promise<void> {
    const { kvs } = await this.#engine.range({ key: this.#key });
    const stored = kvs[0];
    if (!stored || stored.modRevision === this.#modRevision) return;
    await this.#adopt(decode(stored.value), stored.modRevision);
  }

  /** Follows what other servers change, until the signal ends it; throws when it is disturbed. */
  async follow(signal: AbortSignal): Promise<void> {
    await using watch = this.#engine.watch({ key: this.#key }, { signal });
    await watch.created;
    await this.reload();
    for await (const batch of watch) if (batch.events.length > 0) await this.reload();
  }

  async #adopt(state: AccessState, modRevision: number): Promise<void> {
    if (modRevision <= this.#modRevision) return;
    this.#state = state;
    this.#modRevision = modRevision;
    for (const listener of this.#listeners) await listener(state);
  }
}

interface StoredPermission {
  readonly type: Permission['type'];
  readonly key: string;
  readonly end?: string;
}

interface StoredAccess {
  readonly enabled: boolean;
  readonly revision: number;
  readonly users: readonly User[];
  readonly roles: readonly { readonly name: string; readonly permissions: StoredPermission[] }[];
}

function encode(state: AccessState): Bytes {
  const stored: StoredAccess = {
    enabled: state.enabled,
    revision: state.revision,
    users: [...state.users.values()],
    roles: [...state.roles.values()].map(({ name, permissions }) => ({
      name,
      permissions: permissions.map(({ type, key, end }) => ({
        type,
        key: toHex(key),
        ...(end && end.length > 0 ? { end: toHex(end) } : {}),
      })),
    })),
  };
  return utf8(JSON.stringify(stored));
}

/** The record is ours, but who serves from it must survive whatever stands there. */
function decode(bytes: Bytes): AccessState {
  try {
    return fromStored(JSON.parse(text(bytes)) as StoredAccess);
  } catch (error) {
    throw new HoldfastError('corrupt', 'the record of users and roles is damaged', {
      cause: error,
    });
  }
}

function fromStored(stored: StoredAccess): AccessState {
  if (typeof stored.enabled !== 'boolean' || !Number.isSafeInteger(stored.revision)) {
    throw new TypeError('not a record of users and roles');
  }
  return {
    enabled: stored.enabled,
    revision: stored.revision,
    users: new Map(stored.users.map((user) => [user.name, user])),
    roles: new Map(
      stored.roles.map(({ name, permissions }) => [
        name,
        {
          name,
          permissions: permissions.map(({ type, key, end }) => ({
            type,
            key: fromHex(key),
            ...(end ? { end: fromHex(end) } : {}),
          })),
        },
      ]),
    ),
  };
}

function fromHex(hex: string): Bytes {
  const pairs = hex.match(/../g) ?? [];
  return fromBinaryString(
    pairs.map((pair) => String.fromCharCode(Number.parseInt(pair, 16))).join(''),
  );
}
