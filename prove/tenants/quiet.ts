/** The quiet tenant: renews its lease and takes its lock, and writes down what each took. */
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { utf8 } from '../../src/base/bytes.ts';
import { LeaseService, LockService } from '../../src/wire/messages/services.ts';
import type { GrpcClient } from '../../src/wire/net/grpc-client.ts';

/** Milliseconds. */
export interface Waits {
  readonly renewal: number[];
  readonly lock: number[];
  /** A sync of a file of its own on the same disk: what the disk does, whoever asks. */
  readonly sync: number[];
}

/** Two counted requests in a cycle: a quiet tenant stays below its own limit on any disk. */
const CYCLE_MS = 5;
const SYNC_EVERY = 10;
const BLOCK = Buffer.alloc(4_096);

export class Quiet {
  readonly #client: GrpcClient;
  readonly #directory: string;
  readonly #lease: bigint;
  readonly #renew: () => Promise<void>;

  static async open(client: GrpcClient, directory: string): Promise<Quiet> {
    const { ID } = await client.unary(LeaseService.LeaseGrant, { TTL: 600 });
    const stream = client.stream(LeaseService.LeaseKeepAlive);
    const answers = stream.responses()[Symbol.asyncIterator]();
    const renew = async (): Promise<void> => {
      stream.send({ ID });
      await answers.next();
    };
    return new Quiet(client, directory, { lease: ID, renew });
  }

  private constructor(
    client: GrpcClient,
    directory: string,
    { lease, renew }: { readonly lease: bigint; readonly renew: () => Promise<void> },
  ) {
    this.#client = client;
    this.#directory = directory;
    this.#lease = lease;
    this.#renew = renew;
  }

  /** One cycle after another for a while; now and then a sync beside the server. */
  async work(ms: number, waits: Waits): Promise<void> {
    const file = await open(join(this.#directory, 'sync'), 'w');
    const until = performance.now() + ms;
    try {
      for (let cycle = 1; performance.now() < until; cycle++) {
        const began = performance.now();
        waits.renewal.push(await took(this.#renew));
        waits.lock.push(await took(() => this.#cycle()));
        if (cycle % SYNC_EVERY === 0) waits.sync.push(await took(() => written(file)));
        await pause(Math.max(0, CYCLE_MS - (performance.now() - began)));
      }
    } finally {
      await file.close();
    }
  }

  async #cycle(): Promise<void> {
    const { key } = await this.#client.unary(LockService.Lock, {
      name: utf8('chair'),
      lease: this.#lease,
    });
    await this.#client.unary(LockService.Unlock, { key });
  }
}

async function written(file: FileHandle): Promise<void> {
  await file.write(BLOCK, 0, BLOCK.length);
  await file.datasync();
}

async function took(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}
