/**
 * A simulated line between one process and the authority: requests and answers take time, get
 * lost, arrive after their sender gave up, and stop during a partition.
 */
import type { ManualClock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { CallOptions, Engine, Status } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { LeaseGrant, LeaseGrantRequest, LeaseInfo, LeaseRenewal } from '../../model/lease.ts';
import type {
  Header,
  LeaseId,
  RangeRequest,
  RangeResult,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Watch, WatchBatch, WatchRequest } from '../../model/watch.ts';
import { EngineWrapper } from '../engine-wrapper.ts';
import type { ProcessClock } from './process-clock.ts';

export interface Weather {
  /** One way. */
  readonly delayMsMax: number;
  /** Of requests, and of answers. */
  readonly lossRate: number;
  /** A request that is lost for its sender and arrives much later. */
  readonly lateRate: number;
  /** Of watches, per batch. */
  readonly breakRate: number;
}

export const FAIR: Weather = { delayMsMax: 2, lossRate: 0, lateRate: 0, breakRate: 0 };

/** How long a sender waits for an answer that was lost. */
const PATIENCE_MS = 1_500;
const LATE_MS_MAX = 20_000;

export class Network extends EngineWrapper {
  weather: Weather;
  /** Nothing passes. */
  partitioned = false;
  readonly #world: ManualClock;
  readonly #process: ProcessClock;
  readonly #random: Random;

  constructor(
    inner: Engine,
    world: ManualClock,
    process: ProcessClock,
    random: Random,
    weather: Weather,
  ) {
    super(inner);
    this.#world = world;
    this.#process = process;
    this.#random = random;
    this.weather = weather;
  }

  override range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    return this.#send(() => super.range(request, options));
  }

  override txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    return this.#send(() => super.txn(request, options));
  }

  override grantLease(request: LeaseGrantRequest, options?: CallOptions): Promise<LeaseGrant> {
    return this.#send(() => super.grantLease(request, options));
  }

  override keepAlive(id: LeaseId, options?: CallOptions): Promise<LeaseRenewal> {
    return this.#send(() => super.keepAlive(id, options));
  }

  override revokeLease(id: LeaseId, options?: CallOptions): Promise<Header> {
    return this.#send(() => super.revokeLease(id, options));
  }

  override leaseInfo(
    id: LeaseId,
    options?: CallOptions & { readonly keys?: boolean },
  ): Promise<LeaseInfo> {
    return this.#send(() => super.leaseInfo(id, options));
  }

  override status(options?: CallOptions): Promise<Status> {
    return this.#send(() => super.status(options));
  }

  override watch(request: WatchRequest, options?: CallOptions): Watch {
    return this.#delayed(super.watch(request, options));
  }

  override async close(): Promise<void> {}

  #later(delayMs: number, run: () => void): void {
    this.#world.wakeAt(this.#world.now() + delayMs, run);
  }

  #delayMs(): number {
    return this.#random.next() * this.weather.delayMsMax;
  }

  #send<T>(request: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const lost = (): void =>
        this.#later(PATIENCE_MS, () =>
          this.#process.deliver(() =>
            reject(new HoldfastError('unavailable', 'no answer', { outcome: 'unknown' })),
          ),
        );
      const { lossRate, lateRate } = this.weather;
      const late = this.#random.chance(lateRate);
      if (late || this.#random.chance(lossRate)) lost();
      if (!late && this.#random.chance(lossRate)) return;
      const arrives = this.#delayMs() + (late ? this.#random.next() * LATE_MS_MAX : 0);
      this.#later(arrives, () => {
        if (this.partitioned) {
          lost();
          return;
        }
        const answered = (deliver: () => void): void => {
          if (this.#random.chance(lossRate)) lost();
          else this.#later(this.#delayMs(), () => this.#process.deliver(deliver));
        };
        request().then(
          (answer) => answered(() => resolve(answer)),
          (error: unknown) => answered(() => reject(error)),
        );
      });
    });
  }

  #delayed(watch: Watch): Watch {
    watch.created.catch(() => {});
    const arrive = <T>(value: T): Promise<T> =>
      new Promise((resolve) => {
        this.#later(this.#delayMs(), () => this.#process.deliver(() => resolve(value)));
      });
    return {
      created: watch.created,
      requestProgress: () => watch.requestProgress(),
      close: () => watch.close(),
      [Symbol.asyncDispose]: () => watch.close(),
      [Symbol.asyncIterator]: () => this.#batches(watch, arrive),
    };
  }

  #batches(watch: Watch, arrive: <T>(value: T) => Promise<T>): AsyncIterator<WatchBatch> {
    const inner = watch[Symbol.asyncIterator]();
    return {
      next: async () => {
        const step = await inner.next();
        await arrive(undefined);
        if (this.partitioned || this.#random.chance(this.weather.breakRate)) {
          void watch.close();
          throw new HoldfastError('unavailable', 'the watch broke');
        }
        return step;
      },
    };
  }
}
