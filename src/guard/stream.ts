/**
 * Owns a byte device or socket (serial line, pty, Unix or TCP) and lets only the newest token's
 * connection speak.
 *
 * A client sends one line, `holdfast TOKEN [HOLDER]`, and is answered `ok MARK` or one line that
 * says why not; after `ok` bytes go both ways. When a newer token comes, the mark is raised durably
 * first, the older connection is not read any more, and what was taken from it is drained to the
 * device or dropped, before the first byte of the new one: nothing of the old follows it. Bytes
 * the device has been handed cannot be recalled, so their write is awaited in any case.
 *
 * With a delimiter only whole frames reach the device; an incomplete one of a connection that was
 * cut is never sent.
 */
import type { Server, Socket } from 'node:net';
import { createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { concatBytes } from '../base/bytes.ts';
import { systemClock } from '../base/system.ts';
import { HoldfastError } from '../model/errors.ts';
import { formatToken, type Token } from '../model/token.ts';
import { type Claim, Gate, type GuardOptions } from './gate.ts';
import type { MarkStore } from './marks.ts';

export interface StreamGuardOptions extends GuardOptions {
  readonly resource: string;
  /** `drain`: what was taken from the older connection is sent. `abort`: it is dropped. */
  readonly onNewer?: 'drain' | 'abort';
  /** A device that takes longer than this for what is under way turns the newer one away. */
  readonly drainMs?: number;
  /** The byte that ends a frame, as 10 for lines; absent: bytes are sent as they come. */
  readonly delimiter?: number;
  /** Sent to the device before a newer token's first byte: a reset, for devices that have one. */
  readonly preamble?: Uint8Array;
}

const GREETING_BYTES_MAX = 5_000;
const GREETING_MS_MAX = 10_000;
const FRAME_BYTES_MAX = 1_048_576;
const DRAIN_MS = 5_000;

interface Speaker {
  readonly claim: Claim;
  readonly socket: Socket;
  /** Nothing more is taken from it. */
  silenced: boolean;
  /** What was taken from it and is not with the device yet; resolves when nothing is left. */
  flow: Promise<void>;
}

export class StreamGuard {
  readonly #device: Duplex;
  readonly #marks: MarkStore;
  readonly #options: StreamGuardOptions;
  readonly #gate: Gate;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #speaker: Speaker | undefined;
  /** Changes of speaker, one at a time. */
  #turn: Promise<unknown> = Promise.resolve();
  #broken: Error | undefined;

  constructor(device: Duplex, marks: MarkStore, options: StreamGuardOptions) {
    if (!device.writable || device.destroyed) {
      throw new HoldfastError('guard-unfit', 'the device is not open for writing');
    }
    this.#device = device;
    this.#marks = marks;
    this.#options = options;
    this.#gate = new Gate('stream', options);
    this.#server = createServer((socket) => void this.#greet(socket));
    device.on('data', (chunk: Uint8Array) => this.#speaker?.socket.write(chunk));
    device.on('error', (error) => this.#break(error));
    device.on('close', () => this.#break(new Error('the device was closed')));
  }

  /** For `listen`, on a Unix socket or a port. */
  get server(): Server {
    return this.#server;
  }

  get current(): Token | undefined {
    return this.#speaker?.claim.token;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await this.#turn.catch(() => {});
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #greet(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => this.#sockets.delete(socket));
    try {
      const { token, holder, rest } = await readGreeting(socket);
      await this.#gate.ready({ token, holder });
      const claim = this.#gate.read({ token, holder }, this.#options.resource);
      const turn = this.#turn.then(() => this.#take(socket, claim, rest));
      this.#turn = turn.catch(() => {});
      await turn;
    } catch (error) {
      socket.end(`${HoldfastError.from(error).message}\n`);
    }
  }

  async #take(socket: Socket, claim: Claim, rest: Uint8Array): Promise<void> {
    if (this.#broken) throw new HoldfastError('unavailable', this.#broken.message);
    const verdict = await this.#marks.raise(claim, 'reign', this.#gate.clock.wall());
    if (!verdict.admitted) throw this.#gate.refused(claim, verdict.mark);
    const before = this.#speaker;
    if (before) await this.#silence(before);
    if (socket.destroyed) return;
    const { preamble } = this.#options;
    const newer = !before || before.claim.token < claim.token;
    if (preamble && newer) await this.#write(preamble);
    this.#gate.admitted(claim);
    this.#listenTo(socket, claim, rest);
  }

  #listenTo(socket: Socket, claim: Claim, rest: Uint8Array): void {
    const speaker: Speaker = { claim, socket, silenced: false, flow: Promise.resolve() };
    this.#speaker = speaker;
    socket.write(`ok ${formatToken(claim.token)}\n`);
    const cut = framer(this.#options.delimiter);
    const take = (chunk: Uint8Array): void => {
      if (speaker.silenced) return;
      let frame: Uint8Array;
      try {
        frame = cut(chunk);
      } catch (error) {
        socket.end(`${(error as Error).message}\n`);
        speaker.silenced = true;
        return;
      }
      if (frame.length === 0) return;
      // One chunk at a time is under way, so that little is in flight when a newer one comes.
      socket.pause();
      speaker.flow = speaker.flow
        .then(() => this.#send(speaker, frame))
        .then(() => {
          if (!speaker.silenced) socket.resume();
        });
    };
    socket.on('data', take);
    socket.once('close', () => {
      if (this.#speaker === speaker && !speaker.silenced) {
        // What it said before it went away is still its own to say.
        void speaker.flow.then(() => {
          if (this.#speaker === speaker) this.#speaker = undefined;
        });
      }
    });
    if (rest.length > 0) take(rest);
    socket.resume();
  }

  async #send(speaker: Speaker, frame: Uint8Array): Promise<void> {
    if (speaker.silenced && this.#options.onNewer === 'abort') return;
    try {
      await this.#write(frame);
    } catch (error) {
      speaker.socket.destroy(error as Error);
    }
  }

  async #silence(speaker: Speaker): Promise<void> {
    speaker.silenced = true;
    speaker.socket.pause();
    const { clock } = this.#gate;
    const { drainMs = DRAIN_MS } = this.#options;
    const late = new Promise<boolean>((resolve) => {
      const cancel = clock.wakeAt(clock.now() + drainMs, () => resolve(true));
      void speaker.flow.then(() => {
        cancel();
        resolve(false);
      });
    });
    const timedOut = await late;
    const { mark } = await this.#marks.mark(speaker.claim.resource).then(
      ({ token }) => ({ mark: token }),
      () => ({ mark: speaker.claim.token }),
    );
    speaker.socket.end(
      mark > speaker.claim.token
        ? `\nstale: token ${speaker.claim.token} < mark ${mark}\n`
        : '\nreplaced by a newer connection of the same token\n',
    );
    if (!timedOut) return;
    throw new HoldfastError('conflict', `the device has not taken what was under way; try again`);
  }

  #write(chunk: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#broken) return reject(this.#broken);
      this.#device.write(chunk, (error) => (error ? reject(error) : resolve()));
    });
  }

  #break(error: Error): void {
    this.#broken ??= error;
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** `holdfast TOKEN [HOLDER]` and a line feed; what follows it belongs to the device. */
async function readGreeting(
  socket: Socket,
): Promise<{ token: string; holder: string | undefined; rest: Uint8Array }> {
  let seen: Buffer = Buffer.alloc(0);
  const deadlineMs = systemClock.now() + GREETING_MS_MAX;
  const cancel = systemClock.wakeAt(deadlineMs, () => socket.destroy());
  try {
    const line = await new Promise<number>((resolve, reject) => {
      const onData = (chunk: Buffer): void => {
        seen = Buffer.concat([seen, chunk]);
        const end = seen.indexOf(10);
        if (end < 0 && seen.length <= GREETING_BYTES_MAX) return;
        socket.pause();
        socket.off('data', onData);
        if (end < 0) reject(notAGreeting());
        else resolve(end);
      };
      socket.on('data', onData);
      socket.once('close', () => reject(new HoldfastError('closed', 'the client went away')));
    });
    const [word, token, holder, ...more] = seen.subarray(0, line).toString().trim().split(' ');
    if (word !== 'holdfast' || !token || more.length > 0) throw notAGreeting();
    return { token, holder, rest: seen.subarray(line + 1) };
  } finally {
    cancel();
  }
}

function notAGreeting(): HoldfastError {
  return new HoldfastError('invalid-argument', 'expected a line "holdfast TOKEN [HOLDER]"');
}

/** Answers the whole frames there are, and keeps the rest for the next chunk. */
function framer(delimiter: number | undefined): (chunk: Uint8Array) => Uint8Array {
  if (delimiter === undefined) return (chunk) => chunk;
  let kept: Uint8Array = new Uint8Array(0);
  return (chunk) => {
    const all = concatBytes(kept, chunk);
    const end = all.lastIndexOf(delimiter) + 1;
    kept = all.subarray(end);
    if (kept.length > FRAME_BYTES_MAX) {
      throw new HoldfastError('request-too-large', `a frame is longer than ${FRAME_BYTES_MAX}`);
    }
    return all.subarray(0, end);
  };
}
