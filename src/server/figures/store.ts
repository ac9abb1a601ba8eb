/**
 * What is told of the store behind a server. An engine in this process tells it at any time; of one
 * elsewhere only its status is known, and the rest is left out rather than told as zero.
 */
import type { Clock } from '../../base/clock.ts';
import type { Metrics, Reading } from '../../base/metrics.ts';
import type { Engine, FiguresNow, Status } from '../../engine/contract.ts';
import type { Revision } from '../../model/transaction.ts';
import { EMULATED_VERSION } from '../services/maintenance.ts';

export interface StoreFiguresOptions {
  readonly metrics: Metrics;
  readonly engine: Engine;
  readonly clock: Clock;
  /** Whether to measure commits, which costs two looks at the clock each. */
  readonly commits: boolean;
  /** The newest that was answered. */
  readonly revision: () => Revision;
}

/** A store that does not say where it stands by then is without a leader. */
const LOOK_MS_MAX = 1_000;
const ALARMS = ['no-space', 'corrupt'] as const;

export class StoreFigures {
  readonly #options: StoreFiguresOptions;
  #status: Status | undefined;
  #looking: Promise<void> | undefined;
  #leaderChanges = 0;
  #lastLeader: string | undefined;

  constructor(options: StoreFiguresOptions) {
    this.#options = options;
    this.#ours();
    this.#etcds();
  }

  /** Asks the store where it stands, for what is rendered next. Never throws. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { engine, clock } = this.#options;
    const late = new AbortController();
    const cancel = clock.wakeAt(clock.now() + LOOK_MS_MAX, () => late.abort());
    try {
      this.#status = await engine.status({ signal: late.signal });
    } catch {
      this.#status = undefined;
    } finally {
      cancel();
    }
    this.#seeLeader();
  }

  #seeLeader(): void {
    const { leader = 0n, term } = this.#status ?? {};
    if (leader === 0n) return;
    const now = `${leader} ${term}`;
    if (this.#lastLeader !== undefined && this.#lastLeader !== now) this.#leaderChanges++;
    this.#lastLeader = now;
  }

  #ours(): void {
    const { metrics, engine, revision } = this.#options;
    const now = (pick: (figures: FiguresNow) => number): (() => Reading) => {
      return () => {
        const figures = engine.figures?.read();
        return figures && pick(figures);
      };
    };
    metrics.gauge('holdfast_revision', 'Newest revision answered.', revision);
    metrics.gauge(
      'holdfast_leases',
      'Leases that live.',
      now(({ leases }) => leases),
    );
    metrics.count(
      'holdfast_lease_expired_total',
      'Leases that ended because nobody renewed them.',
      now(({ leasesExpired }) => leasesExpired),
    );
    metrics.count(
      'holdfast_renew_late_total',
      'Renewals that came with less than a third of the TTL left.',
      now(({ renewalsLate }) => renewalsLate),
    );
    metrics.gauge(
      'holdfast_watchers',
      'Watches on the store, one of them the own one of each server.',
      now(({ watches }) => watches),
    );
    metrics.gauge(
      'etcd_debugging_mvcc_watcher_total',
      "Watches on the store, without the server's own.",
      now(({ watches }) => Math.max(0, watches - 1)),
    );
    metrics.gauge(
      'holdfast_watch_lag_revisions',
      'Revisions by which the slowest watch is behind.',
      now(({ watchLagRevisions }) => watchLagRevisions),
    );
    if (!engine.figures || !this.#options.commits) return;
    const commits = metrics
      .histogram(
        [
          'holdfast_store_commit_seconds',
          'etcd_disk_backend_commit_duration_seconds',
          'etcd_disk_wal_fsync_duration_seconds',
        ],
        'Time of a group commit, from its evaluation until it was durable.',
      )
      .series({});
    engine.figures.onCommit((ms) => commits.observe(ms / 1_000));
  }

  #etcds(): void {
    const { metrics, revision } = this.#options;
    const known = (pick: (status: Status) => number): (() => Reading) => {
      return () => this.#status && pick(this.#status);
    };
    const led = (): number => (this.#status && this.#status.leader !== 0n ? 1 : 0);
    metrics.gauge('etcd_server_has_leader', 'Whether the store answers and has a leader.', led);
    metrics.gauge('etcd_server_is_leader', 'Whether this member leads.', () =>
      this.#status && this.#status.leader === this.#status.memberId ? led() : 0,
    );
    const changes = (): number => this.#leaderChanges;
    const help = 'Changes of leader or term, seen when metrics were read.';
    metrics.count('holdfast_leader_changes_total', help, changes);
    metrics.count('etcd_server_leader_changes_seen_total', help, changes);
    for (const step of ['committed', 'applied']) {
      metrics.gauge(
        `etcd_server_proposals_${step}_total`,
        'The newest revision answered.',
        revision,
      );
    }
    const size = 'etcd_mvcc_db_total_size';
    metrics.gauge(
      `${size}_in_bytes`,
      'Bytes the store takes.',
      known(({ sizeBytes }) => sizeBytes),
    );
    metrics.gauge(
      `${size}_in_use_in_bytes`,
      'Bytes of them in use.',
      known(({ sizeInUseBytes }) => sizeInUseBytes),
    );
    metrics.gauge('etcd_server_version', 'The release whose behaviour clients may expect.', () => [
      [{ server_version: EMULATED_VERSION }, 1],
    ]);
    metrics.gauge('holdfast_alarm', 'Whether an alarm is on.', () =>
      ALARMS.map((alarm) => [{ alarm }, this.#status?.alarms.includes(alarm) ? 1 : 0] as const),
    );
  }
}
