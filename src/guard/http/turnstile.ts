/**
 * Who is inside. One process owns the resource behind it; a mark alone would only keep stale
 * requests from *entering*, so a newer token also waits until the older ones inside have ended:
 * nothing of the old completes after the first of the new.
 */
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Token } from '../../model/token.ts';
import type { Rule } from '../fence.ts';
import { type Claim, Gate, type GuardOptions, type Presented } from '../gate.ts';
import type { MarkStore } from '../marks.ts';

export interface TurnstileOptions extends GuardOptions {
  /** Older operations may go on for so long after a newer token has come, then they are aborted. */
  readonly drainMs?: number;
  /** After the abort, how long the newer one waits for their end before it is turned away. */
  readonly abortMs?: number;
}

/** An operation that is inside. */
export interface Admission {
  readonly resource: string;
  readonly token: Token;
  readonly holder: string | undefined;
  /** Aborts when a newer token has come and the time to finish is over. */
  readonly signal: AbortSignal;
  /** Throws `stale` once this was aborted; to be called right before an effect of this process. */
  ensure(): void;
  /** The operation has ended and will do nothing more. Idempotent. */
  leave(): void;
}

interface Inside {
  readonly token: Token;
  readonly abort: AbortController;
  readonly left: Deferred<void>;
}

/** A resource while anyone is inside or on the way in. */
interface Room {
  readonly inside: Set<Inside>;
  /** The newest token whose mark stands; nobody older goes in after it. */
  newest: Token;
  entering: number;
}

const DRAIN_MS = 5_000;
const ABORT_MS = 5_000;

export class Turnstile {
  readonly #gate: Gate;
  readonly #marks: MarkStore;
  readonly #drainMs: number;
  readonly #abortMs: number;
  readonly #rooms = new Map<string, Room>();

  constructor(kind: string, marks: MarkStore, options: TurnstileOptions = {}) {
    this.#gate = new Gate(kind, options);
    this.#marks = marks;
    this.#drainMs = options.drainMs ?? DRAIN_MS;
    this.#abortMs = options.abortMs ?? ABORT_MS;
  }

  /**
   * Errors: `stale`, `token-invalid`, `token-unsealed`; `conflict` when an older operation neither
   * ends nor reacts to its abort: nothing was done, try again.
   */
  async enter(presented: Presented, resource: string, rule: Rule = 'reign'): Promise<Admission> {
    await this.#gate.ready(presented);
    const claim = this.#gate.read(presented, resource);
    const room = this.#rooms.get(resource) ?? { inside: new Set(), newest: 0n, entering: 0 };
    this.#rooms.set(resource, room);
    room.entering++;
    try {
      const verdict = await this.#marks.raise(claim, rule, this.#gate.clock.wall());
      if (!verdict.admitted) throw this.#gate.refused(claim, verdict.mark);
      if (claim.token > room.newest) room.newest = claim.token;
      await this.#drain(room, claim);
      // Overtaken on the way: the mark was ours when we raised it, and is not any more.
      if (room.newest > claim.token) throw this.#gate.refused(claim, { token: room.newest });
      this.#gate.admitted(claim);
      return this.#admission(room, claim);
    } finally {
      room.entering--;
      this.#tidy(resource, room);
    }
  }

  async #drain({ inside }: Room, { token }: Claim): Promise<void> {
    const older = (): Inside[] => [...inside].filter((each) => each.token < token);
    if (older().length === 0 || (await this.#allLeft(older(), this.#drainMs))) return;
    const reason = new HoldfastError('stale', `stale: token ${token} has come`, { mark: token });
    for (const each of older()) each.abort.abort(reason);
    if (await this.#allLeft(older(), this.#abortMs)) return;
    throw new HoldfastError(
      'conflict',
      `an operation under an older token than ${token} has not ended yet; try again`,
    );
  }

  #allLeft(older: readonly Inside[], withinMs: number): Promise<boolean> {
    const { clock } = this.#gate;
    return new Promise((resolve) => {
      const cancel = clock.wakeAt(clock.now() + withinMs, () => resolve(false));
      void Promise.all(older.map(({ left }) => left.promise)).then(() => {
        cancel();
        resolve(true);
      });
    });
  }

  #admission(room: Room, { resource, token, holder }: Claim): Admission {
    const entry: Inside = { token, abort: new AbortController(), left: deferred() };
    room.inside.add(entry);
    const { signal } = entry.abort;
    return {
      resource,
      token,
      holder,
      signal,
      ensure: () => {
        if (!signal.aborted) return;
        throw new HoldfastError('stale', `stale: token ${token} < mark ${room.newest}`, {
          token,
          mark: room.newest,
        });
      },
      leave: () => {
        room.inside.delete(entry);
        entry.left.resolve();
        this.#tidy(resource, room);
      },
    };
  }

  #tidy(resource: string, room: Room): void {
    const idle = room.inside.size === 0 && room.entering === 0;
    if (idle && this.#rooms.get(resource) === room) this.#rooms.delete(resource);
  }
}
