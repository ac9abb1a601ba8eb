/**
 * What the simulated processes do and what must hold all the while: they take and give back a
 * lock, campaign, observe, and count, under faults; then the faults stop and everybody who still
 * waits must have his turn.
 */
import { utf8 } from '../../base/bytes.ts';
import { sleep } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { seededRandom } from '../../base/random.ts';
import { HoldfastError } from '../../model/errors.ts';
import { prefixRange } from '../../model/range.ts';
import type { Leader } from '../../recipes/election.ts';
import type { Grant } from '../../recipes/grant.ts';
import { type Plant, type SimulatedProcess, SimulatedWorld } from './world.ts';

export interface ScenarioResult {
  readonly seed: number;
  readonly violations: readonly string[];
  readonly simulatedMs: number;
  readonly steps: number;
  readonly grants: number;
  readonly losses: number;
  /** Steps at which two processes were both between acquire and release: what a lock without
   * `ensureHeld` and a deadline would have let happen. */
  readonly overlapsWithoutChecks: number;
  readonly kinds: Readonly<Record<string, number>>;
}

/** How a process watches who leads. */
export type Observe = (
  process: SimulatedProcess,
  signal: AbortSignal,
) => AsyncIterable<Leader | undefined>;

export interface ScenarioOptions {
  readonly seed: number;
  readonly plant?: Plant | undefined;
  /** The clocks of processes stand still while these are paused. */
  readonly sleepyClocks?: boolean | undefined;
  readonly observe?: Observe | undefined;
  /** Length in TTLs. */
  readonly ttls?: number;
  readonly weatherFactor?: number;
}

interface Tenure {
  readonly process: SimulatedProcess;
  readonly grant: Grant;
  readonly line: string;
  released: boolean;
}

const TTLS_MS = [1_000, 10_000, 60_000, 300_000];
const CALM_TTLS = 60;

export async function runScenario(options: ScenarioOptions): Promise<ScenarioResult> {
  const { seed, ttls = 40, weatherFactor = 1 } = options;
  const chance = seededRandom(seed ^ 0x5eed);
  const ttlMs = chance.pick(TTLS_MS);
  const world = await SimulatedWorld.open({
    seed,
    ttlMs,
    processes: chance.integer(2, 6),
    drift: 0.05,
    weather: {
      delayMsMax: chance.pick([1, 20, ttlMs / 8]),
      lossRate: chance.pick([0, 0.02, 0.15]) * weatherFactor,
      lateRate: chance.pick([0, 0.01, 0.05]) * weatherFactor,
      breakRate: chance.pick([0, 0.05]) * weatherFactor,
    },
    plant: options.plant,
    sleepyClocks: options.sleepyClocks,
  });
  const scenario = new Scenario(world, ttlMs, options.observe);
  const faultsEndMs = ttlMs * ttls;
  world.disturb(faultsEndMs);
  scenario.start(faultsEndMs);
  await world.run(faultsEndMs);
  world.calm();
  const calmEndMs = faultsEndMs + ttlMs * CALM_TTLS + 120_000;
  await world.run(calmEndMs, () => scenario.idle);
  scenario.checkEnd();
  await scenario.checkCount();
  const simulatedMs = world.clock.now();
  scenario.stop();
  await world.dispose();
  return {
    seed,
    violations: world.violations,
    simulatedMs,
    steps: world.steps,
    grants: scenario.grants,
    losses: scenario.losses,
    overlapsWithoutChecks: scenario.overlapsWithoutChecks,
    kinds: scenario.kinds,
  };
}

class Scenario {
  readonly #world: SimulatedWorld;
  readonly #observeBy: Observe;
  /** When an operator revoked a lease; its holder learns it within a TTL. */
  readonly #revokedAtMs = new Map<bigint, number>();
  readonly #ttlMs: number;
  readonly #tenures = new Set<Tenure>();
  readonly #newest = new Map<string, bigint>();
  readonly #observing = new AbortController();
  readonly kinds: Record<string, number> = {};
  #running = 0;
  #counted = 0;
  #countedPerhaps = 0;
  #reread = 0;
  grants = 0;
  losses = 0;
  overlapsWithoutChecks = 0;

  constructor(world: SimulatedWorld, ttlMs: number, observe?: Observe) {
    this.#observeBy =
      observe ?? (({ client }, signal) => client.election('election').observe({ signal }));
    this.#world = world;
    this.#ttlMs = ttlMs;
    world.check(() => this.#checkHolders());
  }

  get idle(): boolean {
    return this.#running === 0;
  }

  start(untilMs: number): void {
    for (const process of this.#world.processes) {
      for (const task of [0, 1]) {
        void this.#work(process, process.random.fork(), untilMs, task);
      }
    }
    void this.#observe(this.#world.processes[0]!);
    if (this.#world.random.chance(0.5)) void this.#evict(untilMs);
  }

  /** An operator removes claims that wait, never the one that holds. */
  async #evict(untilMs: number): Promise<void> {
    const { engine, clock, random } = this.#world;
    const line = prefixRange(utf8('lock/'));
    for (;;) {
      await sleep(clock, this.#ttlMs * (1 + random.next() * 4));
      if (clock.now() >= untilMs) return;
      const { kvs } = await engine.range({ ...line, sortTarget: 'create' });
      const [first, ...waiting] = kvs;
      if (first && first.lease !== 0n && random.chance(0.4)) await this.#revoke(first.lease);
      if (!first || waiting.length === 0) continue;
      const { key } = random.pick(waiting);
      await engine.txn({
        compare: [{ key: first.key, target: 'mod', result: '=', value: first.modRevision }],
        success: [{ type: 'delete', key }],
      });
    }
  }

  async #revoke(lease: bigint): Promise<void> {
    const { engine, clock } = this.#world;
    this.#revokedAtMs.set(lease, clock.now());
    await engine.revokeLease(lease).catch(() => {});
  }

  /** An operator took the lease away and the holder may not know it yet. */
  #mayNotKnow(grant: Grant): boolean {
    const atMs = this.#revokedAtMs.get(grant.session.id);
    return atMs !== undefined && this.#world.clock.now() - atMs < this.#ttlMs;
  }

  stop(): void {
    this.#observing.abort();
  }

  /** Who began to wait must have been served or told by the end of the calm. */
  checkEnd(): void {
    if (this.#running > 0) {
      this.#world.violate(`${this.#running} tasks still wait long after the faults ended`);
    }
  }

  async checkCount(): Promise<void> {
    const [process] = this.#world.processes;
    let value: bigint | undefined;
    void process!.client
      .counter('count')
      .get()
      .then((read) => {
        value = read;
      });
    await this.#world.run(this.#world.clock.now() + 60_000, () => value !== undefined);
    const count = Number(value ?? -1n);
    if (count < this.#counted || count > this.#counted + this.#countedPerhaps) {
      this.#world.violate(
        `the counter is ${count} after ${this.#counted} additions and ${this.#countedPerhaps} without an answer`,
      );
    }
  }

  /** At most one of the processes that run would be let through by its own `ensureHeld`. */
  #checkHolders(): boolean {
    let asked = false;
    const believers = new Map<string, Tenure>();
    const openTenures = new Map<string, number>();
    for (const tenure of this.#tenures) {
      const { line, process, grant } = tenure;
      openTenures.set(line, (openTenures.get(line) ?? 0) + 1);
      // A paused process can do nothing; it is asked when it goes on.
      if (process.clock.paused || !grant.held || this.#mayNotKnow(tenure.grant)) continue;
      const other = believers.get(line);
      if (other) {
        this.#world.violate(
          `two holders of "${line}": ${other.process.name} with ${other.grant.token} and ${process.name} with ${grant.token}`,
        );
      }
      believers.set(line, tenure);
      asked = this.#checkClaim(tenure) || asked;
    }
    for (const open of openTenures.values()) if (open > 1) this.overlapsWithoutChecks++;
    return asked;
  }

  /** A holder that believes has its claim at the authority, and a lease that outlives its belief. */
  #checkClaim({ grant, process, line }: Tenure): boolean {
    // Each step would be thorough and slow.
    if (this.#reread++ % 7 !== 0) return false;
    const { engine } = this.#world;
    void engine.range({ key: grant.key }).then(({ kvs }) => {
      if (kvs[0] || !grant.held || process.clock.paused) return;
      this.#world.violate(`${process.name} believes in "${line}" without a claim`);
    });
    const remainingMs = grant.session.remainingMs;
    void engine.leaseInfo(grant.session.id).then(
      ({ remainingTtlMs }) => {
        if (process.clock.toWorldMs(remainingMs) > remainingTtlMs) {
          this.#world.violate(
            `${process.name}'s deadline in ${remainingMs} ms is after the expiry in ${remainingTtlMs} ms`,
          );
        }
      },
      () => {},
    );
    return true;
  }

  async #work(
    process: SimulatedProcess,
    random: Random,
    untilMs: number,
    task: number,
  ): Promise<void> {
    this.#running++;
    try {
      await sleep(process.clock, random.next() * this.#ttlMs);
      while (this.#world.clock.now() < untilMs) {
        const kind = random.pick(task === 0 ? ['lock', 'lock', 'try'] : ['elect', 'lock', 'count']);
        this.kinds[kind] = (this.kinds[kind] ?? 0) + 1;
        await this.#act(kind, process, random);
        await sleep(process.clock, random.next() * this.#ttlMs * random.pick([0.1, 1, 4]));
      }
    } finally {
      this.#running--;
    }
  }

  async #act(kind: string, process: SimulatedProcess, random: Random): Promise<void> {
    const { client } = process;
    try {
      if (kind === 'count') await this.#count(process);
      else if (kind === 'try') {
        const grant = await client.lock('lock').tryAcquire();
        if (grant) await this.#hold('lock', process, grant, random);
      } else {
        const wait = random.chance(0.3) ? { wait: this.#ttlMs * random.next() * 4 } : {};
        const grant =
          kind === 'lock'
            ? await client.lock('lock').acquire(wait)
            : await client.election('election').campaign({ ...wait, value: process.name });
        await this.#hold(kind === 'lock' ? 'lock' : 'election', process, grant, random);
      }
    } catch (error) {
      if (!HoldfastError.is(error) || error.code === 'internal') {
        this.#world.violate(`${process.name}, ${kind}: ${String(error)}`);
      }
    }
  }

  async #hold(
    line: string,
    process: SimulatedProcess,
    grant: Grant,
    random: Random,
  ): Promise<void> {
    this.grants++;
    const newest = this.#newest.get(line) ?? 0n;
    // The answer that grants may be on its way while an operator takes the lease from its holder.
    if (grant.token <= newest && !this.#mayNotKnow(grant)) {
      this.#world.violate(`"${line}" was granted with ${grant.token} after ${newest}`);
    }
    this.#newest.set(line, grant.token > newest ? grant.token : newest);
    const tenure: Tenure = { process, grant, line, released: false };
    this.#tenures.add(tenure);
    try {
      await sleep(process.clock, random.next() * this.#ttlMs * random.pick([0.1, 0.5, 2]));
      if (!grant.held) this.losses++;
    } finally {
      // Afterwards nothing is done under the grant, whatever becomes of the release.
      this.#tenures.delete(tenure);
    }
    await grant.release();
  }

  async #count({ client }: SimulatedProcess): Promise<void> {
    this.#countedPerhaps++;
    await client.counter('count').add(1);
    this.#countedPerhaps--;
    this.#counted++;
  }

  async #observe(process: SimulatedProcess): Promise<void> {
    const { name } = process;
    let newest = 0n;
    try {
      const { signal } = this.#observing;
      for await (const leader of this.#observeBy(process, signal)) {
        if (!leader) continue;
        if (leader.token < newest) {
          this.#world.violate(`${name} observed the term ${leader.token} after ${newest}`);
        }
        newest = leader.token;
      }
    } catch (error) {
      if (!HoldfastError.is(error)) this.#world.violate(`observer: ${String(error)}`);
    }
  }
}
