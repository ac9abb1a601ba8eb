/**
 * The recipes that grant something, observed: the same verbs, each told to an `Observation`.
 *
 * They are classes of their own so that the recipes below carry nothing for it: who observes
 * nothing pays nothing.
 */
import { type CampaignOptions, Election, type Leadership } from './election.ts';
import type { Grant } from './grant.ts';
import { type AcquireOptions, Lock, type LockOptions, type SessionSource } from './lock.ts';
import { type MultiGrant, MultiLock } from './multi-lock.ts';
import type { Asked, Observation } from './observation.ts';
import { type Mode, ReadWriteLock } from './read-write-lock.ts';
import { type Permit, Semaphore } from './semaphore.ts';

type TryOptions = Omit<AcquireOptions, 'wait' | 'onWait'>;
type Work<G, T> = (grant: G) => T | Promise<T>;

export class ObservedLock extends Lock {
  readonly #observation: Observation;
  readonly #asked: Asked;

  constructor(
    observation: Observation,
    name: string,
    { sessions, options }: { readonly sessions: SessionSource; readonly options: LockOptions },
  ) {
    super(name, sessions, options);
    this.#observation = observation;
    this.#asked = { recipe: 'lock', name };
  }

  override acquire(options?: AcquireOptions): Promise<Grant> {
    return this.#observation.take(this.#asked, () => super.acquire(options));
  }

  override tryAcquire(options?: TryOptions): Promise<Grant | undefined> {
    return this.#observation.take(this.#asked, () => super.tryAcquire(options));
  }

  override run<T>(work: Work<Grant, T>, options?: AcquireOptions): Promise<T> {
    return super.run((grant) => this.#observation.within(grant, () => work(grant)), options);
  }
}

export class ObservedReadWriteLock extends ReadWriteLock {
  readonly #observation: Observation;
  readonly #asked: Asked;

  constructor(observation: Observation, name: string, sessions: SessionSource) {
    super(name, sessions);
    this.#observation = observation;
    this.#asked = { recipe: 'read-write-lock', name };
  }

  override acquire(mode: Mode, options?: AcquireOptions): Promise<Grant> {
    return this.#observation.take(this.#asked, () => super.acquire(mode, options));
  }

  override tryAcquire(mode: Mode, options?: TryOptions): Promise<Grant | undefined> {
    return this.#observation.take(this.#asked, () => super.tryAcquire(mode, options));
  }

  override read<T>(work: Work<Grant, T>, options?: AcquireOptions): Promise<T> {
    return super.read((grant) => this.#observation.within(grant, () => work(grant)), options);
  }

  override write<T>(work: Work<Grant, T>, options?: AcquireOptions): Promise<T> {
    return super.write((grant) => this.#observation.within(grant, () => work(grant)), options);
  }
}

export class ObservedSemaphore extends Semaphore {
  readonly #observation: Observation;
  readonly #asked: Asked;

  constructor(
    observation: Observation,
    name: string,
    { permits, sessions }: { readonly permits: number; readonly sessions: SessionSource },
  ) {
    super(name, permits, sessions);
    this.#observation = observation;
    this.#asked = { recipe: 'semaphore', name };
  }

  override acquire(options?: AcquireOptions): Promise<Permit> {
    return this.#observation.take(this.#asked, () => super.acquire(options));
  }

  override tryAcquire(options?: TryOptions): Promise<Permit | undefined> {
    return this.#observation.take(this.#asked, () => super.tryAcquire(options));
  }

  override run<T>(work: Work<Permit, T>, options?: AcquireOptions): Promise<T> {
    return super.run((permit) => this.#observation.within(permit, () => work(permit)), options);
  }
}

export class ObservedMultiLock extends MultiLock {
  readonly #observation: Observation;
  readonly #asked: Asked;

  constructor(observation: Observation, names: readonly string[], sessions: SessionSource) {
    super(names, sessions);
    this.#observation = observation;
    this.#asked = { recipe: 'multi-lock', name: this.names.join(' ') };
  }

  override acquire(options?: AcquireOptions): Promise<MultiGrant> {
    return this.#observation.take(this.#asked, () => super.acquire(options));
  }

  override tryAcquire(options?: TryOptions): Promise<MultiGrant | undefined> {
    return this.#observation.take(this.#asked, () => super.tryAcquire(options));
  }

  override run<T>(work: Work<MultiGrant, T>, options?: AcquireOptions): Promise<T> {
    return super.run((grant) => this.#observation.within(grant, () => work(grant)), options);
  }
}

export class ObservedElection extends Election {
  readonly #observation: Observation;
  readonly #asked: Asked;

  constructor(observation: Observation, name: string, sessions: SessionSource) {
    super(name, sessions);
    this.#observation = observation;
    this.#asked = { recipe: 'election', name };
  }

  override campaign(options?: CampaignOptions): Promise<Leadership> {
    return this.#observation.take(this.#asked, () => super.campaign(options));
  }

  override run<T>(work: Work<Leadership, T>, options?: CampaignOptions): Promise<T> {
    return super.run((term) => this.#observation.within(term, () => work(term)), options);
  }
}
