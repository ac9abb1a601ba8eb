/**
 * Watches: many on one stream, each told apart by its id.
 *
 * The rules of the stream are etcd's: `created` before any event, a refused creation answered with
 * `created` and `canceled` together under id -1, one revision never split unless the client asked
 * for fragments, and a progress answer only when every watch of the stream has been told so far.
 */
import { abortable } from '../../base/abort.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { KeyRange } from '../../model/range.ts';
import type { Header, Revision } from '../../model/transaction.ts';
import {
  type Event,
  isListened,
  type Watch,
  type WatchBatch,
  type WatchListener,
} from '../../model/watch.ts';
import { eventToWire, watchToModel } from '../../wire/messages/convert.ts';
import type {
  WatchCreateRequest,
  WatchRequest,
  WatchResponseInit,
} from '../../wire/messages/gen/rpc.ts';
import { WatchService } from '../../wire/messages/services.ts';
import { statusOf } from '../../wire/messages/status.ts';
import type { StreamCall } from '../../wire/net/grpc-server.ts';
import type { Backend, Call } from '../backend.ts';
import { Outbox } from '../outbox.ts';
import { BatchEncoder, FramedOutlet, ObjectOutlet, type WatchOutlet } from '../watch-outlet.ts';
import { type Handler, stream } from './service.ts';

/** What may wait for a slow client before its watches stop where they are. */
const OUTBOX_BYTES = 262_144;
const MESSAGE_BYTES = 200;
/** With `fragment`, an answer beyond this is cut. */
const FRAGMENT_BYTES = 2 * 2 ** 20;
const REFUSED_ID = -1;

export function watchService(backend: Backend): Handler[] {
  const encoder = new BatchEncoder(backend);
  return [
    stream(WatchService.Watch, (requests, call) => objects(backend, requests, call), {
      direct: (frames, call) => framed(backend, frames, call, encoder),
    }),
  ];
}

async function* objects(
  backend: Backend,
  requests: AsyncIterable<WatchRequest>,
  call: Call,
): AsyncGenerator<WatchResponseInit> {
  const outbox = new Outbox<WatchResponseInit>(OUTBOX_BYTES, weigh);
  const watches = new WatchStream(backend, call, new ObjectOutlet(backend, outbox));
  // Not waited for at the end: a client may leave its side open for as long as it likes.
  watches.read(requests).catch((error: unknown) => outbox.end(error));
  const stay = backend.departure.onLeave((reason) => outbox.end(reason));
  try {
    yield* outbox;
  } finally {
    stay();
    outbox.end();
    await watches.close();
  }
}

/** About what an answer takes. */
function weigh({ events = [] }: WatchResponseInit): number {
  let bytes = MESSAGE_BYTES;
  for (const { kv, prevKv } of events) {
    bytes += MESSAGE_BYTES + (kv?.key?.length ?? 0);
    bytes += (kv?.value?.length ?? 0) + (prevKv?.value?.length ?? 0);
  }
  return bytes;
}

/** Watches go on after the client's last request, until it ends the call or the server leaves. */
async function framed(
  backend: Backend,
  frames: StreamCall,
  call: Call,
  encoder: BatchEncoder,
): Promise<void> {
  const watches = new WatchStream(backend, call, new FramedOutlet(frames, encoder));
  try {
    await backend.departure.during(call.signal, async (over) => {
      await watches.read(frames.requests<WatchRequest>());
      await abortable(new Promise(() => {}), over);
    });
  } finally {
    await watches.close();
  }
}

interface Running {
  readonly id: number;
  readonly watch: Watch;
  readonly range: KeyRange;
  readonly fragment: boolean;
  readonly notify: boolean;
  /** Everything up to here has gone out. */
  told: Revision;
}

class WatchStream {
  readonly #backend: Backend;
  readonly #call: Call;
  readonly #outlet: WatchOutlet;
  readonly #forget: () => void;
  readonly #running = new Map<number, Running>();
  #nextId = 0;
  /** Progress was asked for when the store stood here. */
  #progressFrom: Revision | undefined;
  /** Whose turn it is when there is room again, so that none is always last. */
  #turn = 0;
  /** Watches that are read by iterating wait here. */
  #room: Deferred<void> | undefined;
  #closed = false;

  constructor(backend: Backend, call: Call, outlet: WatchOutlet) {
    this.#backend = backend;
    this.#call = call;
    this.#outlet = outlet;
    outlet.onRoom = () => this.#resume();
    this.#forget = backend.onAccessChange(() => this.#recheck());
  }

  /** Runs until the client has no more requests or the call ends. */
  async read(requests: AsyncIterable<WatchRequest>): Promise<void> {
    for await (const request of requests) {
      if (this.#closed) return;
      if (request.createRequest) await this.#create(request.createRequest);
      else if (request.cancelRequest) this.#cancel(request.cancelRequest.watchId);
      else if (request.progressRequest) await this.#progress();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#forget();
    const running = [...this.#running.values()];
    this.#running.clear();
    this.#room?.resolve();
    for (const { watch } of running) await watch.close();
  }

  async #create(request: WatchCreateRequest): Promise<void> {
    const refused = this.#refusalOf(request);
    if (refused !== undefined) return this.#refuse(refused);
    let watch: Watch;
    let header: Header;
    try {
      const wanted = watchToModel(request);
      this.#backend.gate.keys(this.#call.identity, [{ right: 'read', range: wanted }]);
      watch = this.#backend.view(this.#call).watch(wanted, { signal: this.#call.signal });
      header = await watch.created;
    } catch (error) {
      return this.#refuse(reasonOf(error));
    }
    if (this.#closed) return watch.close();
    const id = this.#idFor(request);
    const { fragment, progressNotify: notify } = request;
    const range = { key: request.key, end: request.rangeEnd };
    const running: Running = { id, watch, range, fragment, notify, told: 0 };
    this.#running.set(id, running);
    this.#say({ header: this.#backend.header(header), watchId: id, created: true });
    if (isListened(watch)) watch.listen(this.#listener(running));
    else void this.#pump(running);
  }

  #listener(running: Running): WatchListener {
    const outlet = this.#outlet;
    return {
      get full() {
        return outlet.full;
      },
      onBatch: (batch) => this.#tell(running, batch),
      onEnd: (error) => this.#disturbed(running, error),
    };
  }

  #refusalOf({ watchId, startRevision, key, rangeEnd }: WatchCreateRequest): string | undefined {
    if (startRevision < 0) return 'etcdserver: mvcc: required revision has been compacted';
    if (watchId !== 0 && this.#running.has(watchId)) {
      return 'mvcc: duplicate watch ID provided on the WatchStream';
    }
    const empty =
      rangeEnd.length > 0 &&
      !(rangeEnd.length === 1 && rangeEnd[0] === 0) &&
      Buffer.compare(key, rangeEnd) >= 0;
    return empty ? 'mvcc: watcher range is empty' : undefined;
  }

  #refuse(cancelReason: string): void {
    const header = this.#backend.header({ revision: 0, era: 0 });
    this.#say({ header, watchId: REFUSED_ID, created: true, canceled: true, cancelReason });
  }

  #idFor({ watchId }: WatchCreateRequest): number {
    if (watchId !== 0) return watchId;
    while (this.#running.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  async #pump(running: Running): Promise<void> {
    try {
      for await (const batch of running.watch) {
        while (this.#outlet.full && !this.#closed) await this.#hasRoom();
        if (!this.#running.has(running.id)) return;
        this.#tell(running, batch);
      }
    } catch (error) {
      this.#disturbed(running, error);
    }
  }

  #hasRoom(): Promise<void> {
    this.#room ??= deferred();
    return this.#room.promise;
  }

  #resume(): void {
    this.#room?.resolve();
    this.#room = undefined;
    const running = [...this.#running.values()];
    for (let i = 0; i < running.length && !this.#outlet.full; i++) {
      this.#turn = (this.#turn + 1) % running.length;
      const { watch } = running[this.#turn]!;
      if (isListened(watch)) watch.resume();
    }
  }

  #tell(running: Running, batch: WatchBatch): void {
    const asked = this.#progressFrom !== undefined;
    running.told = batch.header.revision;
    if (batch.events.length > 0) this.#events(running, batch);
    else if (running.notify && !asked) this.#say(this.#message(running, batch.header));
    if (asked) this.#answerProgress();
  }

  #events(running: Running, batch: WatchBatch): void {
    if (!running.fragment) {
      this.#outlet.tell(running.id, batch);
      return;
    }
    const pieces = cut(batch.events);
    const messages = pieces.map((piece, index) => ({
      ...this.#message(running, batch.header),
      events: piece.map(eventToWire),
      fragment: index < pieces.length - 1,
    }));
    if (!this.#closed) this.#outlet.say(...messages);
  }

  #message(running: Running, header: Header): WatchResponseInit {
    return { header: this.#backend.header(header), watchId: running.id };
  }

  /** A watch that ended by itself is cancelled with the reason; only a broken store ends the rest. */
  #disturbed(running: Running, error: unknown): void {
    if (!this.#running.delete(running.id)) return;
    const { compactRevision } = HoldfastError.is(error, 'compacted') ? error.details : {};
    this.#say({
      header: this.#backend.header({ revision: 0, era: 0 }),
      watchId: running.id,
      canceled: true,
      compactRevision,
      cancelReason: compactRevision === undefined ? reasonOf(error) : statusOf(error).message,
    });
    this.#answerProgress();
  }

  #cancel(id: number): void {
    const running = this.#running.get(id);
    if (!running) return;
    this.#stop(running);
    const header = this.#backend.header({ revision: running.told, era: 0 });
    this.#say({ header, watchId: id, canceled: true });
  }

  #stop(running: Running): void {
    this.#running.delete(running.id);
    void running.watch.close();
    this.#answerProgress();
  }

  async #progress(): Promise<void> {
    const { header } = await abortable(this.#backend.engine.status(), this.#call.signal);
    this.#progressFrom = header.revision;
    for (const running of this.#running.values()) running.watch.requestProgress();
    this.#answerProgress();
  }

  /** One answer for the whole stream, when the last of its watches has come so far. */
  #answerProgress(): void {
    if (this.#progressFrom === undefined || this.#running.size === 0) return;
    let told = Number.POSITIVE_INFINITY;
    for (const running of this.#running.values()) told = Math.min(told, running.told);
    if (told < this.#progressFrom) return;
    this.#progressFrom = undefined;
    const { era } = this.#backend.lastHeader;
    const header = this.#backend.header({ revision: told, era });
    this.#say({ header, watchId: REFUSED_ID });
  }

  /** Users or roles changed: what may no longer be read is told no more, from this moment on. */
  #recheck(): void {
    for (const running of [...this.#running.values()]) {
      if (this.#backend.gate.stillMayRead(this.#call.identity.user, running.range)) continue;
      this.#stop(running);
      this.#say({
        header: this.#backend.header({ revision: 0, era: 0 }),
        watchId: running.id,
        canceled: true,
        cancelReason: 'etcdserver: permission denied',
      });
    }
  }

  #say(message: WatchResponseInit): void {
    if (!this.#closed) this.#outlet.say(message);
  }
}

const CODE_NAMES: Readonly<Record<number, string>> = {
  3: 'InvalidArgument',
  7: 'PermissionDenied',
  8: 'ResourceExhausted',
  16: 'Unauthenticated',
};

/** As Go prints the error of a call, which is what clients look for in a refused watch. */
function reasonOf(error: unknown): string {
  const { code, message } = statusOf(error);
  const name = CODE_NAMES[code];
  return name === undefined ? message : `rpc error: code = ${name} desc = ${message}`;
}

/** Cuts a revision's events into pieces that fit; one event too large for that goes alone. */
function cut(events: readonly Event[]): (readonly Event[])[] {
  const pieces: Event[][] = [[]];
  let bytes = 0;
  for (const event of events) {
    const { kv, prevKv } = event;
    const size = 100 + kv.key.length + kv.value.length + (prevKv?.value.length ?? 0);
    if (bytes > 0 && bytes + size > FRAGMENT_BYTES) {
      pieces.push([]);
      bytes = 0;
    }
    pieces[pieces.length - 1]!.push(event);
    bytes += size;
  }
  return pieces;
}
