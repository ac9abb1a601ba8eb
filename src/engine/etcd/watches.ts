/**
 * All watches of an engine on one stream, and the way back after it breaks.
 *
 * Each watch knows the revision it needs next. When the stream ends, for whatever reason, a new one
 * is opened on the next member and every watch is created again from there, so nothing is missed
 * and nothing told twice. A reader that falls behind has its watch cancelled at the server and
 * created again, from where it stopped, when it comes back.
 */
import type { Clock } from '../../base/clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Header } from '../../model/transaction.ts';
import type { Event, WatchRequest as ModelRequest } from '../../model/watch.ts';
import { eventToModel, watchToWire } from '../../wire/messages/convert.ts';
import type {
  ResponseHeader,
  WatchRequestInit,
  WatchResponse,
} from '../../wire/messages/gen/rpc.ts';
import { WatchService } from '../../wire/messages/services.ts';
import { watchCancelError } from '../../wire/messages/status.ts';
import type { StreamClientCall } from '../../wire/net/grpc-client.ts';
import type { Channel } from './channel.ts';
import { EtcdWatch } from './watch.ts';

interface Stream {
  readonly call: Promise<{ call: StreamClientCall<WatchRequestInit>; member: number }>;
  readonly byId: Map<number, EtcdWatch>;
  /** Creations in the order they were sent, which is the order they are answered in. */
  readonly creating: EtcdWatch[];
  /** Pieces of an answer that is not whole yet. */
  readonly fragments: Map<number, Event[]>;
  /** Known once the stream has been opened. */
  member?: number;
}

export interface WatchesOptions {
  readonly channel: Channel;
  readonly clock: Clock;
  readonly bytesMax: number;
  readonly headerOf: (header: ResponseHeader | undefined) => Header;
}

/** Before the stream is opened again, doubled each time up to the second. */
const RETRY_MS_MIN = 20;
const RETRY_MS_MAX = 1_000;
/** etcd does not answer a request for progress while a watch catches up; so it is asked again. */
const PROGRESS_AGAIN_MS = 250;

export class Watches {
  readonly #options: WatchesOptions;
  readonly #watches = new Set<EtcdWatch>();
  #stream: Stream | undefined;
  #nextId = 1;
  #retryMs = RETRY_MS_MIN;
  #cancelRetry: () => void = () => {};
  #cancelProgress: (() => void) | undefined;
  #closed = false;

  constructor(options: WatchesOptions) {
    this.#options = options;
    options.channel.onLeave((member) => this.#left(member));
  }

  open(request: ModelRequest): EtcdWatch {
    const watch = new EtcdWatch(request, {
      bytesMax: this.#options.bytesMax,
      create: (own) => this.#create(own),
      cancel: (own) => this.#cancel(own),
      gone: (own) => this.#gone(own),
      progress: () => this.#askProgress(),
    });
    if (watch.ended) return watch;
    this.#watches.add(watch);
    this.#create(watch);
    return watch;
  }

  close(): void {
    this.#closed = true;
    this.#cancelRetry();
    this.#cancelProgress?.();
    const error = new HoldfastError('closed', 'the engine has been closed');
    for (const watch of [...this.#watches]) watch.fail(error);
    this.#drop();
  }

  /** Every watch ends with the error; for when the history behind the engine is not what it was. */
  failAll(error: HoldfastError): void {
    for (const watch of [...this.#watches]) watch.fail(error);
  }

  #create(watch: EtcdWatch): void {
    const stream = this.#openStream();
    const id = this.#nextId++;
    watch.id = id;
    stream.byId.set(id, watch);
    stream.creating.push(watch);
    const create = { ...watchToWire(watch.requestFromHere()), watchId: id, fragment: true };
    this.#send(stream, { createRequest: create });
  }

  #cancel(watch: EtcdWatch): void {
    const stream = this.#stream;
    if (!stream?.byId.delete(watch.id)) return;
    stream.fragments.delete(watch.id);
    this.#send(stream, { cancelRequest: { watchId: watch.id } });
  }

  #gone(watch: EtcdWatch): void {
    this.#watches.delete(watch);
    this.#cancel(watch);
    if (this.#watches.size === 0) this.#drop();
  }

  #askProgress(): void {
    if (this.#cancelProgress || this.#closed) return;
    if (this.#stream) this.#send(this.#stream, { progressRequest: {} });
    const { clock } = this.#options;
    this.#cancelProgress = clock.wakeAt(clock.now() + PROGRESS_AGAIN_MS, () => {
      this.#cancelProgress = undefined;
      if ([...this.#watches].some((watch) => watch.progressWanted)) this.#askProgress();
    });
  }

  #send(stream: Stream, request: WatchRequestInit): void {
    // A stream that cannot be opened tells its own end.
    stream.call.then(({ call }) => call.send(request)).catch(() => {});
  }

  #openStream(): Stream {
    if (this.#stream) return this.#stream;
    const stream: Stream = {
      byId: new Map(),
      creating: [],
      fragments: new Map(),
      call: this.#options.channel.stream(WatchService.Watch, {
        onMessage: (response) => this.#received(stream, response),
        onEnd: (error) => this.#ended(stream, error),
      }),
    };
    stream.call.then(
      ({ member }) => {
        stream.member = member;
      },
      (error: unknown) => this.#ended(stream, HoldfastError.from(error)),
    );
    this.#stream = stream;
    return stream;
  }

  #received(stream: Stream, response: WatchResponse): void {
    if (stream !== this.#stream) return;
    if (response.created) this.#created(stream, response);
    else if (response.canceled) this.#cancelled(stream, response);
    else if (response.watchId < 0) this.#progressed(response);
    else this.#told(stream, response);
  }

  #created(stream: Stream, response: WatchResponse): void {
    const watch = stream.creating.shift();
    if (!watch) return;
    this.#retryMs = RETRY_MS_MIN;
    if (!response.canceled) {
      watch.stands(this.#options.headerOf(response.header));
      return;
    }
    stream.byId.delete(watch.id);
    const error = watchCancelError(response.cancelReason);
    if (isFinal(error) && this.#options.channel.tokenMayHaveEnded()) this.#abandon(stream);
    else watch.refused(error);
  }

  #cancelled(stream: Stream, { watchId, compactRevision, cancelReason }: WatchResponse): void {
    const watch = stream.byId.get(watchId);
    if (!watch) return;
    stream.byId.delete(watchId);
    const error =
      compactRevision > 0
        ? new HoldfastError(
            'compacted',
            `the revision to watch from has been compacted; the oldest readable is ${compactRevision}`,
            { compactRevision },
          )
        : watchCancelError(cancelReason);
    // A server that goes away says so; the watch goes on elsewhere.
    if (error.code === 'unavailable') this.#ended(stream, undefined);
    else watch.fail(error);
  }

  #told(stream: Stream, response: WatchResponse): void {
    const watch = stream.byId.get(response.watchId);
    if (!watch) return;
    const events = response.events.map(eventToModel);
    const before = stream.fragments.get(response.watchId);
    const all = before ? [...before, ...events] : events;
    if (response.fragment) {
      stream.fragments.set(response.watchId, all);
      return;
    }
    stream.fragments.delete(response.watchId);
    watch.told({ header: this.#options.headerOf(response.header), events: all });
  }

  /** One answer for the whole stream: every watch on it has been told so far. */
  #progressed(response: WatchResponse): void {
    const header = this.#options.headerOf(response.header);
    for (const watch of this.#watches) watch.progressed(header);
  }

  /** The member does not answer others either: the watches go on elsewhere. */
  #left(member: number): void {
    const stream = this.#stream;
    if (stream?.member === member) this.#abandon(stream);
  }

  /** All watches of the stream go on with another one. */
  #abandon(stream: Stream): void {
    this.#ended(stream, undefined);
    stream.call.then(({ call }) => call.cancel()).catch(() => {});
  }

  /** Creates everything anew on the next member, after a pause that grows while nobody answers. */
  #ended(stream: Stream, error: HoldfastError | undefined): void {
    if (stream !== this.#stream) return;
    this.#stream = undefined;
    if (this.#closed || this.#watches.size === 0) return;
    if (error && isFinal(error) && !this.#options.channel.tokenMayHaveEnded()) {
      for (const watch of [...this.#watches]) watch.fail(error);
      return;
    }
    void stream.call.then(
      ({ member }) => this.#options.channel.leave(member),
      () => {},
    );
    const { clock } = this.#options;
    this.#cancelRetry = clock.wakeAt(clock.now() + this.#retryMs, () => this.#resume());
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
  }

  #resume(): void {
    for (const watch of this.#watches) if (!watch.paused) this.#create(watch);
  }

  #drop(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.call.then(({ call }) => call.cancel()).catch(() => {});
  }
}

/** Another attempt would meet the same answer. */
function isFinal(error: HoldfastError): boolean {
  return error.code === 'permission-denied' || error.code === 'unauthenticated';
}
