/** Follows every change through a watch, over every disturbance, and writes down what it was told. */
import { text, utf8 } from '../../src/base/bytes.ts';
import type { Engine } from '../../src/engine/contract.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { prefixRange } from '../../src/model/range.ts';

export class Consumer {
  readonly told: string[] = [];
  resumes = 0;
  #next: number;
  #stopped = false;
  #close: () => Promise<void> = async () => {};
  readonly #done: Promise<void>;

  constructor(engine: Engine, from: number) {
    this.#next = from;
    this.#done = this.#run(engine);
    // Whoever stops it is told; until then it must not end the process.
    this.#done.catch(() => {});
  }

  get revision(): number {
    return this.#next - 1;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#close();
    await this.#done;
  }

  async #run(engine: Engine): Promise<void> {
    while (!this.#stopped) {
      const watch = engine.watch({ ...prefixRange(utf8('')), startRevision: this.#next });
      watch.created.catch(() => {});
      this.#close = () => watch.close();
      try {
        for await (const { header, events } of watch) {
          for (const { type, kv } of events) {
            this.told.push(`${kv.modRevision} ${type} ${text(kv.key)}`);
          }
          this.#next = header.revision + 1;
        }
      } catch (error) {
        // An experiment that fails elsewhere closes its engines first.
        if (HoldfastError.is(error, 'closed')) return;
        if (!HoldfastError.is(error, 'unavailable')) throw error;
        this.resumes++;
      }
    }
  }
}
