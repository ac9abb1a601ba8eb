/** A byte device that takes lines, the guard that owns the only line to it, and a caller's end. */
import { once } from 'node:events';
import {
  type AddressInfo,
  createConnection,
  createServer,
  type Server,
  type Socket,
} from 'node:net';
import { createInterface } from 'node:readline';
import type { Context } from '../../scripts/experiment.ts';
import { LmdbMarks } from '../../src/guard/http/index.ts';
import { StreamGuard } from '../../src/guard/stream.ts';
import { HoldfastError } from '../../src/index.ts';

const LINE_FEED = 10;

export interface Device {
  /** Every line it was sent, in order. */
  readonly lines: readonly string[];
  readonly port: number;
}

/** Takes lines from whoever is connected, and says `ok` to each. It cannot compare anything. */
export async function startDevice(context: Context): Promise<Device> {
  const lines: string[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => {});
    createInterface({ input: socket }).on('line', (line) => {
      lines.push(line);
      socket.write('ok\n');
    });
  });
  const port = await listen(server);
  context.cleanup(() => server.close());
  return { lines, port };
}

/** Answers the port to speak to instead of the device's own. */
export async function guardDevice(
  context: Context,
  device: Device,
  resource: string,
): Promise<number> {
  const marks = LmdbMarks.open(`${context.scratch}/marks-of-${resource}`);
  context.cleanup(() => marks.close());
  const line = createConnection(device.port, '127.0.0.1');
  await once(line, 'connect');
  context.cleanup(() => line.destroy());
  const guard = new StreamGuard(line, marks, { resource, delimiter: LINE_FEED });
  const port = await listen(guard.server);
  context.cleanup(() => guard.close());
  return port;
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** A connection to a device, or to its guard: one line out, one line back. */
export class Line {
  readonly #socket: Socket;
  readonly #answers: AsyncIterator<string>;

  constructor(port: number) {
    this.#socket = createConnection(port, '127.0.0.1');
    this.#socket.on('error', () => {});
    this.#answers = createInterface({ input: this.#socket })[Symbol.asyncIterator]();
  }

  /** The first line to a guard. */
  async greet(token: bigint | string, holder: string): Promise<void> {
    await this.say(`holdfast ${token} ${holder}`);
  }

  /** Rejects with `stale` when the guard ends the conversation. */
  async say(line: string): Promise<void> {
    this.#socket.write(`${line}\n`);
    let answer: string | undefined;
    // A guard that interrupts begins with an empty line, so that it ends a line of the device.
    do {
      const next = await this.#answers.next();
      answer = next.done ? 'the connection was closed' : next.value;
    } while (answer === '');
    if (!answer.startsWith('ok')) throw new HoldfastError('stale', answer);
  }

  close(): void {
    this.#socket.destroy();
  }
}
