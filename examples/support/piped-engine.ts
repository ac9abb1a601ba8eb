/**
 * An engine at the other end of a process's message channel, so that several processes share one
 * embedded store while one of them owns it. A stopped process sends nothing, and its lease runs
 * out, as over a network. Start the child with `serialization: 'advanced'`.
 */
import type { ChildProcess } from 'node:child_process';
import { abortable } from '../../src/base/abort.ts';
import { type Deferred, deferred } from '../../src/base/deferred.ts';
import { BoundedQueue } from '../../src/base/queue.ts';
import type { CallOptions, Capabilities, Engine } from '../../src/engine/contract.ts';
import { abortError, HoldfastError } from '../../src/model/errors.ts';
import type { Header } from '../../src/model/transaction.ts';
import type { Watch, WatchBatch, WatchRequest } from '../../src/model/watch.ts';

const VERBS = [
  'range',
  'txn',
  'grantLease',
  'keepAlive',
  'revokeLease',
  'leaseInfo',
  'compact',
  'liftEra',
  'status',
] as const;
type Verb = (typeof VERBS)[number];
type Failure = Pick<HoldfastError, 'code' | 'message' | 'outcome' | 'details'>;

type Request =
  | { readonly type: 'hello' }
  | { readonly type: 'call'; readonly id: number; readonly verb: Verb; readonly args: unknown[] }
  | { readonly type: 'watch'; readonly id: number; readonly request: WatchRequest }
  | { readonly type: 'unwatch'; readonly id: number };
type Answer =
  | { readonly type: 'ready'; readonly capabilities: Capabilities }
  | { readonly type: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly type: 'failure'; readonly id: number; readonly failure: Failure }
  | { readonly type: 'created'; readonly id: number; readonly header: Header }
  | { readonly type: 'batch'; readonly id: number; readonly batch: WatchBatch };

/** Messages of ours among whatever else the two processes say to each other. */
interface Envelope<T> {
  readonly engine: T;
}

/** The owner's side: answers the child until it ends. */
export function serveEngine(engine: Engine, child: ChildProcess): void {
  const watches = new Map<number, Watch>();
  const say = (answer: Answer): void => {
    if (child.connected) child.send({ engine: answer } satisfies Envelope<Answer>, () => {});
  };
  const fail = (id: number, error: unknown): void => {
    const { code, message, outcome, details } = HoldfastError.from(error);
    say({ type: 'failure', id, failure: { code, message, outcome, details } });
  };
  const tell = async (id: number, watch: Watch): Promise<void> => {
    say({ type: 'created', id, header: await watch.created });
    for await (const batch of watch) say({ type: 'batch', id, batch });
  };
  const handle = (request: Request): void => {
    if (request.type === 'hello') {
      say({ type: 'ready', capabilities: engine.capabilities });
      return;
    }
    const { id } = request;
    if (request.type === 'call') {
      const verb = engine[request.verb].bind(engine) as (...args: unknown[]) => Promise<unknown>;
      verb(...request.args).then(
        (value) => say({ type: 'answer', id, value }),
        (error) => fail(id, error),
      );
    } else if (request.type === 'watch') {
      const watch = engine.watch(request.request);
      watches.set(id, watch);
      tell(id, watch).catch((error: unknown) => fail(id, error));
    } else {
      watches
        .get(id)
        ?.close()
        .catch(() => {});
      watches.delete(id);
    }
  };
  child.on('message', (message: Partial<Envelope<Request>>) => {
    if (message.engine) handle(message.engine);
  });
  child.once('exit', () => {
    for (const watch of watches.values()) watch.close().catch(() => {});
  });
}

/** The child's side: resolves when the owner serves. */
export async function pipedEngine(): Promise<Engine> {
  const calls = new Map<number, Deferred<unknown>>();
  const watches = new Map<number, PipedWatch>();
  const ready = deferred<Capabilities>();
  let lastId = 0;
  const say = (request: Request): void => {
    process.send?.({ engine: request } satisfies Envelope<Request>);
  };
  const settle = (id: number): Deferred<unknown> | undefined => {
    const call = calls.get(id);
    calls.delete(id);
    return call;
  };
  const handle = (answer: Answer): void => {
    if (answer.type === 'ready') ready.resolve(answer.capabilities);
    else if (answer.type === 'answer') settle(answer.id)?.resolve(answer.value);
    else if (answer.type === 'created') watches.get(answer.id)?.stand(answer.header);
    else if (answer.type === 'batch') watches.get(answer.id)?.take(answer.batch);
    else {
      const { code, message, outcome, details } = answer.failure;
      const error = new HoldfastError(code, message, { outcome, ...details });
      settle(answer.id)?.reject(error);
      watches.get(answer.id)?.fail(error);
    }
  };
  process.on('message', (message: Partial<Envelope<Answer>>) => {
    if (message.engine) handle(message.engine);
  });

  say({ type: 'hello' });

  const call = (verb: Verb, args: unknown[]): Promise<unknown> => {
    const id = ++lastId;
    const answer = deferred<unknown>();
    calls.set(id, answer);
    // A signal cannot travel; aborting ends the wait here, and the call may still happen.
    const signals = args.map((arg) => (arg as CallOptions | undefined)?.signal);
    const signal = signals.find((found) => found !== undefined);
    const plain = args.map((arg) =>
      typeof arg === 'object' && arg !== null ? { ...arg, signal: undefined } : arg,
    );
    say({ type: 'call', id, verb, args: plain });
    return abortable(answer.promise, signal).catch((error: unknown) => {
      throw signal?.aborted ? abortError(signal, 'unknown') : error;
    });
  };
  const watch = (request: WatchRequest, options: CallOptions = {}): Watch => {
    const id = ++lastId;
    const made = new PipedWatch(() => say({ type: 'unwatch', id }));
    watches.set(id, made);
    say({ type: 'watch', id, request });
    const { signal } = options;
    signal?.addEventListener('abort', () => made.fail(abortError(signal, 'rejected')), {
      once: true,
    });
    return made;
  };
  const verbs = Object.fromEntries(
    VERBS.map((verb) => [verb, (...args: unknown[]) => call(verb, args)]),
  ) as unknown as Pick<Engine, Verb>;
  const close = async (): Promise<void> => {
    for (const open of watches.values()) await open.close();
    process.removeAllListeners('message');
    process.disconnect?.();
  };
  const capabilities = await ready.promise;
  return { ...verbs, capabilities, watch, close, [Symbol.asyncDispose]: close };
}

const QUEUE_MAX = 1_000;

class PipedWatch implements Watch {
  readonly created: Promise<Header>;
  readonly #created: Deferred<Header> = deferred();
  readonly #queue = new BoundedQueue<WatchBatch>(QUEUE_MAX);
  readonly #unwatch: () => void;

  constructor(unwatch: () => void) {
    this.#unwatch = unwatch;
    this.created = this.#created.promise;
    this.created.catch(() => {});
  }

  stand(header: Header): void {
    this.#created.resolve(header);
  }

  take(batch: WatchBatch): void {
    const { revision } = batch.header;
    if (this.#queue.push(batch) || this.#queue.closed) return;
    this.fail(new HoldfastError('watch-overrun', 'too slow', { resumeRevision: revision }));
  }

  fail(error: unknown): void {
    this.#created.reject(error);
    this.#queue.fail(error);
    this.#unwatch();
  }

  requestProgress(): void {}

  async close(): Promise<void> {
    this.#created.reject(new HoldfastError('closed', 'the watch was closed'));
    this.#queue.end();
    this.#unwatch();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<WatchBatch> {
    return {
      next: () => this.#queue.next(),
      return: async () => {
        await this.close();
        return { done: true, value: undefined };
      },
    };
  }
}
