/** Writes one key after another, and says since when the cluster takes writes again. */
import { setTimeout as pause } from 'node:timers/promises';
import { utf8 } from '../../src/base/bytes.ts';
import type { Engine } from '../../src/engine/contract.ts';
import { HoldfastError } from '../../src/model/errors.ts';

const PAUSE_MS = 10;

export class Probe {
  readonly acknowledged: string[] = [];
  readonly trouble: string[] = [];
  /** When the last write that was acknowledged began, and when its answer came. */
  #last = { beganAt: 0, answeredAt: 0 };
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(engine: Engine) {
    this.#done = this.#run(engine);
  }

  /** When the first write is acknowledged that began after `at`; call it right then. */
  async servedAfter(at: number, withinMs = 30_000): Promise<number> {
    const until = performance.now() + withinMs;
    while (performance.now() < until) {
      const { beganAt, answeredAt } = this.#last;
      if (beganAt > at) return answeredAt;
      await pause(PAUSE_MS);
    }
    throw new Error(`no write was acknowledged within ${withinMs / 1_000} s`);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #run(engine: Engine): Promise<void> {
    for (let i = 0; !this.#stopped; i++) {
      const key = `probe/${i}`;
      const beganAt = performance.now();
      try {
        await engine.txn({ success: [{ type: 'put', key: utf8(key) }] });
        this.acknowledged.push(key);
        this.#last = { beganAt, answeredAt: performance.now() };
      } catch (error) {
        if (!HoldfastError.is(error)) this.trouble.push(String(error));
      }
      await pause(PAUSE_MS);
    }
  }
}
