/**
 * A world of processes around one authority, all in virtual time and from one seed. The recipes
 * are the real ones, on the real memory engine.
 */
import { ManualClock, sleep } from '../../base/clock.ts';
import { type Random, seededRandom } from '../../base/random.ts';
import { Client } from '../../client.ts';
import type { Engine } from '../../engine/contract.ts';
import { openMemoryEngine } from '../../engine/memory/engine.ts';
import { FAIR, Network, type Weather } from './network.ts';
import { ProcessClock } from './process-clock.ts';

/** Lets every promise settle that can without time passing. */
export function drain(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Stands between the recipes and the line; how a bug is planted without touching the product. */
export type Plant = (engine: Engine, process: ProcessClock) => Engine;

export interface WorldOptions {
  readonly seed: number;
  readonly ttlMs: number;
  readonly processes: number;
  readonly weather: Weather;
  /** The largest difference in speed that the sessions allow for; clocks differ by up to it. */
  readonly drift: number;
  readonly plant?: Plant | undefined;
  readonly sleepyClocks?: boolean | undefined;
}

export interface SimulatedProcess {
  readonly name: string;
  readonly clock: ProcessClock;
  readonly network: Network;
  readonly client: Client;
  readonly random: Random;
}

export class SimulatedWorld {
  readonly clock: ManualClock;
  readonly random: Random;
  readonly engine: Engine;
  readonly processes: readonly SimulatedProcess[];
  readonly options: WorldOptions;
  readonly violations: string[] = [];
  readonly #checks: (() => boolean)[] = [];
  steps = 0;

  static async open(options: WorldOptions): Promise<SimulatedWorld> {
    const random = seededRandom(options.seed);
    const clock = new ManualClock();
    const engine = await openMemoryEngine({ clock, random: random.fork(), leaseTtlMsMin: 1 });
    return new SimulatedWorld(options, clock, random, engine);
  }

  private constructor(options: WorldOptions, clock: ManualClock, random: Random, engine: Engine) {
    this.options = options;
    this.clock = clock;
    this.random = random;
    this.engine = engine;
    this.processes = Array.from({ length: options.processes }, (_, i) => this.#process(`p${i}`));
  }

  #process(name: string): SimulatedProcess {
    const { drift, ttlMs, weather, plant, sleepyClocks = false } = this.options;
    const random = this.random.fork();
    // A clock slower by more than the declared bound would outlive its lease; a faster one not.
    const rate = 1 - drift * 0.98 + random.next() * drift * 2;
    const clock = new ProcessClock(this.clock, rate, sleepyClocks);
    const network = new Network(this.engine, this.clock, clock, random.fork(), weather);
    const engine = plant ? plant(network, clock) : network;
    const options = { clock, random: random.fork(), ttl: ttlMs, drift, holder: name };
    return { name, clock, network, client: new Client(engine, options, false), random };
  }

  /** Run after every step; reports by `violate`, and answers whether it asked the authority. */
  check(check: () => boolean): void {
    this.#checks.push(check);
  }

  violate(what: string): void {
    if (this.violations.length < 20) {
      this.violations.push(
        `seed ${this.options.seed}, ${Math.round(this.clock.now())} ms: ${what}`,
      );
    }
  }

  /** Moves time from alarm to alarm until `untilMs` or until `done`. */
  async run(untilMs: number, done: () => boolean = () => false): Promise<void> {
    await drain();
    for (;;) {
      const next = this.clock.nextAlarmAt();
      if (next === undefined || next > untilMs || done()) break;
      this.clock.advanceTo(next);
      await drain();
      this.steps++;
      let asked = false;
      for (const check of this.#checks) asked = check() || asked;
      // The answer must be of this moment.
      if (asked) await drain();
    }
  }

  /** The faults stop: all lines are fair, nobody is paused. */
  calm(): void {
    for (const { network, clock } of this.processes) {
      network.weather = FAIR;
      network.partitioned = false;
      if (clock.paused) clock.resume();
    }
  }

  /** Pauses and partitions, each process by itself, until `untilMs`. */
  disturb(untilMs: number): void {
    const { ttlMs } = this.options;
    for (const process of this.processes) {
      void this.#disturbing(process, process.random.fork(), untilMs, ttlMs);
    }
  }

  async #disturbing(
    { clock, network }: SimulatedProcess,
    random: Random,
    untilMs: number,
    ttlMs: number,
  ): Promise<void> {
    for (;;) {
      await sleep(this.clock, ttlMs * (0.5 + random.next() * 8));
      if (this.clock.now() >= untilMs) return;
      const lengthMs = ttlMs * random.next() * random.pick([0.2, 1, 2.5]);
      if (random.chance(0.5)) {
        clock.pause();
        await sleep(this.clock, lengthMs);
        if (clock.paused) clock.resume();
      } else {
        network.partitioned = true;
        await sleep(this.clock, lengthMs);
        network.partitioned = false;
      }
    }
  }

  async dispose(): Promise<void> {
    const closing = Promise.all(this.processes.map(({ client }) => client.close()));
    let closed = false;
    void closing.then(() => {
      closed = true;
    });
    await this.run(this.clock.now() + this.options.ttlMs * 100 + 600_000, () => closed);
    await this.engine.close();
  }
}
