/**
 * A grant: the right to act, with the number by which the resource can check it.
 *
 * It may be taken apart (`({ token, signal, ensureHeld }) => …`): its verbs need no `this`.
 *
 * `ensureHeld` is synchronous and reads the clock: call it right before an effect. `signal` aborts
 * before the authority can let somebody else in, unless the event loop stands still; then only
 * `ensureHeld`, the watchdog and, in the end, the guard at the resource remain.
 */
import type { Bytes } from '../base/bytes.ts';
import { HoldfastError, type LossReason } from '../model/errors.ts';
import type { SealedToken } from '../model/seal.ts';
import type { Token } from '../model/token.ts';
import type { Compare, Revision } from '../model/transaction.ts';
import { isOurs } from './line.ts';
import { type SealOptions, Seals } from './seals.ts';
import type { Holding, Session } from './session.ts';
import { reportStale, type StaleReport } from './stale.ts';

export interface GrantParts {
  readonly name: string;
  readonly session: Session;
  readonly token: Token;
  readonly key: Bytes;
  readonly createRevision: Revision;
  /** Further keys without which the grant is lost. */
  readonly moreKeys?: readonly Bytes[] | undefined;
  /** Gives the claim back at the authority; called once. */
  readonly giveBack: () => Promise<void>;
}

const NONE: readonly Bytes[] = [];

export class Grant implements AsyncDisposable {
  readonly name: string;
  /** Greater than every token granted before for this name. */
  readonly token: Token;
  readonly key: Bytes;
  readonly session: Session;
  readonly #parts: GrantParts;
  readonly #holdings: Holding[];
  #controller: AbortController | undefined;
  #ended: { readonly reason: LossReason; readonly message: string } | undefined;
  #error: HoldfastError | undefined;
  #releasing: Promise<void> | undefined;
  #seals: Seals | undefined;

  constructor(parts: GrantParts) {
    this.#parts = parts;
    this.name = parts.name;
    this.token = parts.token;
    this.key = parts.key;
    this.session = parts.session;
    const lose: Holding['lose'] = (reason, message) => this.#end(reason, message);
    this.#holdings = [{ key: parts.key, lose, place: undefined }];
    for (const key of parts.moreKeys ?? NONE) this.#holdings.push({ key, lose, place: undefined });
    for (const holding of this.#holdings) this.session.hold(holding);
  }

  /** Aborts when the grant ends, with a `grant-lost` error that carries the reason. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#ended) this.#controller.abort(this.#loss());
    }
    return this.#controller.signal;
  }

  /** Whether the grant is held, judged by the clock now. */
  get held(): boolean {
    return !this.#ended && this.session.alive && !this.#ended;
  }

  get lossReason(): LossReason | undefined {
    return this.held ? undefined : this.#ended?.reason;
  }

  /** Throws `grant-lost` if the grant is not held any more; synchronous, reads the clock. */
  readonly ensureHeld = (): void => {
    if (!this.held) throw this.#loss();
  };

  /** Holds in a transaction on the same authority for as long as the grant stands. */
  readonly ownership = (): Compare => isOurs(this.key, this.#parts.createRevision);

  /**
   * The token signed by the authority, for a guard that takes no other; of locks and elections only.
   * Ask for it before each use: it is short-lived, and a present one is answered at once. Errors:
   * `unsupported` when the authority has no key (only Holdfast servers do), `grant-lost`.
   */
  readonly sealedToken = async (options?: SealOptions): Promise<SealedToken> => {
    this.ensureHeld();
    this.#seals ??= new Seals(this);
    const sealed = await this.#seals.get(options);
    this.ensureHeld();
    return sealed;
  };

  /** Gives the grant back. Idempotent; resolves when the next one may have it. */
  readonly release = (): Promise<void> => {
    this.#releasing ??= this.#release();
    return this.#releasing;
  };

  /**
   * For a guard's refusal of a fresh grant: tells the authority of the mark, and lifts its era if
   * it has gone back in time. Acquire again afterwards.
   */
  reportStale(mark: Token): Promise<StaleReport> {
    return reportStale(this.session.authority, mark, this.session.identity);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  #release(): Promise<void> {
    const lost = !this.held;
    const reason = this.#ended?.reason;
    // The work stops before the claim is gone.
    this.#end('released', 'it was released');
    if (lost && reason !== 'broken') return Promise.resolve();
    return this.#parts.giveBack().catch((error) => {
      // The lease is over, and the claim with it.
      if (!HoldfastError.is(error, 'session-lost')) throw error;
    });
  }

  #end(reason: LossReason, message: string): void {
    if (this.#ended) return;
    this.#ended = { reason, message };
    for (const holding of this.#holdings) this.session.unhold(holding);
    this.#controller?.abort(this.#loss());
  }

  /** Made when somebody asks: a release ends every grant, and an error is not cheap. */
  #loss(): HoldfastError {
    const { reason, message } = this.#ended!;
    this.#error ??= new HoldfastError(
      'grant-lost',
      `"${this.name}", token ${this.token}: ${message}`,
      { reason, token: this.token },
    );
    return this.#error;
  }
}
