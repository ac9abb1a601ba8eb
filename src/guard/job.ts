/**
 * The sink record of a job: none → started → done, so that each job (a tick, a task) has one
 * *effective* run even when a runner is paused and another takes over.
 *
 * `start` under a newer token takes a started job over and counts an attempt; an older token is
 * refused. `finish` is accepted only from the token that started last: a runner that was overtaken
 * cannot mark the job done. Once done it stays done. Where the effect is in the same database, do
 * both in one transaction; otherwise hand the token on to the effect's own guard.
 */
import { HoldfastError } from '../model/errors.ts';
import { formatToken, parseToken, type Token } from '../model/token.ts';
import { Gate, type GuardOptions, type Presented } from './gate.ts';
import { MarkTable } from './mark-table.ts';
import { queryOf, type Transaction } from './postgres/query.ts';

export interface JobRecord {
  readonly token: Token;
  readonly attempts: number;
  readonly done: boolean;
  /** What the runner left when it finished. */
  readonly result?: string | undefined;
}

/** Reads, decides and writes one record in one atomic, durable step. */
export interface JobStore {
  update<T>(
    id: string,
    decide: (present: JobRecord | undefined) => { readonly next?: JobRecord; readonly answer: T },
  ): Promise<T>;
}

export type JobStart =
  | { readonly state: 'run'; readonly attempt: number }
  | { readonly state: 'done'; readonly result: string | undefined };

type Decision<T> = { readonly next?: JobRecord; readonly answer: T };
type Refusal = { readonly mark: Token };

export class JobSink {
  readonly #store: JobStore;
  readonly #gate: Gate;

  constructor(store: JobStore, options: GuardOptions = {}) {
    this.#store = store;
    this.#gate = new Gate('job', options);
  }

  /** `run`: go ahead, this is attempt n. `done`: somebody has finished it. Errors: `stale`. */
  async start(as: Presented, id: string): Promise<JobStart> {
    await this.#gate.ready(as);
    const claim = this.#gate.read(as, id);
    const answer = await this.#store.update<JobStart | Refusal>(id, (present) =>
      decideStart(present, claim.token),
    );
    if ('mark' in answer) throw this.#gate.refused(claim, { token: answer.mark });
    this.#gate.admitted(claim);
    return answer;
  }

  /**
   * Errors: `stale` when another runner has taken over; `conflict` when the job was never started
   * under this token. Finishing twice under one token is the same as once.
   */
  async finish(as: Presented, id: string, result?: string): Promise<void> {
    await this.#gate.ready(as);
    const claim = this.#gate.read(as, id);
    const answer = await this.#store.update<'done' | 'unstarted' | Refusal>(id, (present) =>
      decideFinish(present, claim.token, result),
    );
    if (typeof answer === 'object') throw this.#gate.refused(claim, { token: answer.mark });
    if (answer === 'unstarted') {
      throw new HoldfastError('conflict', `${id} was not started under token ${claim.token}`);
    }
    this.#gate.admitted(claim);
  }

  async state(id: string): Promise<JobRecord | undefined> {
    return await this.#store.update(id, (present) => ({ answer: present }));
  }
}

function decideStart(present: JobRecord | undefined, token: Token): Decision<JobStart | Refusal> {
  if (present?.done) return { answer: { state: 'done', result: present.result } };
  if (present && token < present.token) return { answer: { mark: present.token } };
  // The same token again is the same attempt, retried: its answer may have been lost.
  const attempt = present?.token === token ? present.attempts : (present?.attempts ?? 0) + 1;
  return { next: { token, attempts: attempt, done: false }, answer: { state: 'run', attempt } };
}

function decideFinish(
  present: JobRecord | undefined,
  token: Token,
  result: string | undefined,
): Decision<'done' | 'unstarted' | Refusal> {
  if (present && token < present.token) return { answer: { mark: present.token } };
  if (!present || token > present.token) return { answer: 'unstarted' };
  if (present.done) return { answer: 'done' };
  return { next: { ...present, done: true, result }, answer: 'done' };
}

export class MemoryJobs implements JobStore {
  readonly #records = new Map<string, JobRecord>();

  async update<T>(id: string, decide: (present: JobRecord | undefined) => Decision<T>): Promise<T> {
    const { next, answer } = decide(this.#records.get(id));
    if (next) this.#records.set(id, next);
    return answer;
  }
}

/** On the embedded store, for the processes of one machine. */
export class LmdbJobs implements JobStore {
  readonly #table: MarkTable;

  private constructor(table: MarkTable) {
    this.#table = table;
  }

  static open(directory: string): LmdbJobs {
    return new LmdbJobs(MarkTable.open(directory));
  }

  async update<T>(id: string, decide: (present: JobRecord | undefined) => Decision<T>): Promise<T> {
    return await this.#table.transact((at) => {
      const { next, answer } = decide(readRecord(at.get(`job/${id}`)));
      if (next) at.put(`job/${id}`, { ...next, token: formatToken(next.token) });
      return answer;
    });
  }

  async close(): Promise<void> {
    await this.#table.close();
  }
}

/**
 * In `holdfast_guard.job`, inside the user's transaction, so that record and effect are one step.
 * Needs `PostgresGuard.install`, and rights on that table.
 */
export class PostgresJobs implements JobStore {
  readonly #tx: Transaction;

  constructor(tx: Transaction) {
    this.#tx = tx;
  }

  async update<T>(id: string, decide: (present: JobRecord | undefined) => Decision<T>): Promise<T> {
    const query = queryOf(this.#tx);
    // Nobody else decides about this job until the transaction ends, whether it has a row or not.
    await query(`select pg_advisory_xact_lock(hashtextextended('holdfast job ' || $1::text, 0))`, [
      id,
    ]);
    const [row] = await query(
      'select token::text, attempts, done, result from holdfast_guard.job where id = $1::text',
      [id],
    );
    const { next, answer } = decide(readRecord(row));
    if (next) {
      await query(
        `insert into holdfast_guard.job as j (id, token, attempts, done, result)
         values ($1::text, $2::bigint, $3::integer, $4::boolean, $5::text)
         on conflict (id) do update set token = excluded.token, attempts = excluded.attempts,
           done = excluded.done, result = excluded.result`,
        [id, formatToken(next.token), next.attempts, next.done, next.result ?? null],
      );
    }
    return answer;
  }
}

function readRecord(stored: unknown): JobRecord | undefined {
  if (stored === undefined) return undefined;
  const { token, attempts, done, result } = stored as Record<string, unknown>;
  return {
    token: parseToken(token),
    attempts: Number(attempts),
    done: done === true,
    result: typeof result === 'string' ? result : undefined,
  };
}
