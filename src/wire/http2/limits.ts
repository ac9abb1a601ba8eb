/**
 * How much of everything a peer may cost us. Each limit has a fixed price at which the peer loses
 * its connection, or its stream where the text says so.
 */

/** A budget that refills: `burst` at once, `perSecond` in the long run. */
export interface Rate {
  readonly burst: number;
  readonly perSecond: number;
}

export interface Limits {
  /** Longest frame we accept; our SETTINGS_MAX_FRAME_SIZE. */
  readonly frameBytes: number;
  /** Decoded size of a header list (name + value + 32 each); beyond it the stream is reset. */
  readonly headerListBytes: number;
  /** Number of fields in a list; beyond it the stream is reset. */
  readonly headers: number;
  /** Encoded length of one header block, over all its frames. */
  readonly headerBlockBytes: number;
  /** Decoded size of a list at which it is an attack: the connection is lost, not the stream. */
  readonly headerBombBytes: number;
  /** CONTINUATION frames in one header block. */
  readonly continuations: number;
  /** Streams the peer may have open at once; more are refused (REFUSED_STREAM). */
  readonly concurrentStreams: number;
  /** Entries in one SETTINGS frame. */
  readonly settingsEntries: number;
  /**
   * Bytes waiting to be written: frames that a flood makes us answer, or what waits on one stream beside
   * its largest piece. More costs the connection. With more on all streams together a session is `behind`.
   */
  readonly bufferedBytes: number;
  /** Data that waits on all streams together; more is the fault of whoever asks and does not read. */
  readonly queuedBytes: number;
  /** Streams that the peer reset within a second, that we reset, or refused: rapid reset. */
  readonly resets: Rate;
  readonly pings: Rate;
  readonly settings: Rate;
  /** DATA without content and end, HEADERS and CONTINUATION without content. */
  readonly emptyFrames: Rate;
  /** Window updates, beyond those that DATA of ours explains. */
  readonly windowUpdates: Rate;
  /** Frames without effect: PRIORITY, unknown types, frames for streams long gone. */
  readonly idleFrames: Rate;
}

export const DEFAULT_LIMITS: Limits = Object.freeze({
  frameBytes: 16_384,
  headerListBytes: 16_384,
  headers: 128,
  headerBlockBytes: 65_536,
  headerBombBytes: 131_072,
  continuations: 8,
  concurrentStreams: 4_096,
  settingsEntries: 32,
  bufferedBytes: 8_388_608,
  queuedBytes: 536_870_912,
  // As many as streams may be open: they may all be given up at once, by the peer or by us before it.
  resets: { burst: 4_096, perSecond: 100 },
  pings: { burst: 100, perSecond: 10 },
  settings: { burst: 32, perSecond: 1 },
  emptyFrames: { burst: 100, perSecond: 10 },
  windowUpdates: { burst: 2_000, perSecond: 1_000 },
  idleFrames: { burst: 4_096, perSecond: 100 },
});

/** What is left of a `Rate`. Time is an argument. */
export class Budget {
  readonly #rate: Rate;
  #left: number;
  #filledAt = 0;

  constructor(rate: Rate) {
    this.#rate = rate;
    this.#left = rate.burst;
  }

  /** False when the budget is used up. */
  spend(now: number): boolean {
    const elapsed = now - this.#filledAt;
    if (elapsed > 0) {
      this.#filledAt = now;
      this.#left = Math.min(
        this.#rate.burst,
        this.#left + (elapsed * this.#rate.perSecond) / 1_000,
      );
    }
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }

  /** Useful work explains so many more. */
  earn(count: number): void {
    this.#left = Math.min(this.#rate.burst, this.#left + count);
  }
}
