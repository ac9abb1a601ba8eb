/** Plain HTTP/1.1 on `node:http`, which does not listen itself: connections are handed to it. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import { HoldfastError } from '../model/errors.ts';
import type { Connection } from './backend.ts';
import type { Departure } from './departure.ts';
import type { Endpoints } from './endpoints.ts';
import { connectionOn, type Exchange, type Fields } from './exchange.ts';

export interface Http1Options {
  readonly endpoints: Endpoints;
  readonly departure: Departure;
  readonly onFault: (error: unknown) => void;
}

const HEADERS_MS = 10_000;
/** A caller that has its answer and says nothing more is not waited for longer. */
const LINGER_MS = 1_000;

export function http1Server({ endpoints, departure, onFault }: Http1Options): Server {
  // A body may stream for as long as a watch lives; headers may not.
  const times = { headersTimeout: HEADERS_MS, requestTimeout: 0 };
  const server = createServer(times, (request, response) => {
    response.on('error', () => {});
    if (departure.begun) response.setHeader('connection', 'close');
    // A connection that this answer has left idle is closed with the others.
    response.once('close', () => {
      if (departure.begun) setImmediate(() => server.closeIdleConnections());
    });
    endpoints.handle(new Http1Exchange(request, response)).catch((error: unknown) => {
      onFault(error);
      response.destroy();
    });
  });
  // It never listens itself, and looks at its times only once it does.
  server.emit('listening');
  return server;
}

class Http1Exchange implements Exchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #gone = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#request = request;
    this.#response = response;
    response.once('close', () => {
      this.#gone.abort(new HoldfastError('cancelled', 'the caller went away'));
    });
  }

  get method(): string {
    return this.#request.method ?? '';
  }

  get target(): string {
    return this.#request.url ?? '/';
  }

  get host(): string | undefined {
    return this.#request.headers.host;
  }

  header(name: string): string | undefined {
    const value = this.#request.headers[name];
    return Array.isArray(value) ? value[0] : value;
  }

  get tls(): TLSSocket | undefined {
    const { socket } = this.#request;
    return socket instanceof TLSSocket ? socket : undefined;
  }

  get address(): string {
    return this.#request.socket.remoteAddress ?? '';
  }

  get connection(): Connection {
    return connectionOn(this.#request.socket);
  }

  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  get body(): AsyncIterable<Uint8Array> {
    // Who stops reading still has an answer to send.
    return this.#request.iterator({ destroyOnReturn: false });
  }

  /** One request at a time is what a connection can have unfinished. */
  hold(): boolean {
    return true;
  }

  /** Nor is the next one begun before the answer to this one has been taken. */
  room(): Promise<void> {
    return Promise.resolve();
  }

  get headSent(): boolean {
    return this.#response.headersSent;
  }

  get over(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }

  head(status: number, fields: Fields): void {
    this.#response.writeHead(status, fields);
  }

  async write(text: string): Promise<void> {
    const response = this.#response;
    if (response.write(text)) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        response.off('drain', done);
        response.off('close', done);
        resolve();
      };
      response.once('drain', done);
      response.once('close', done);
    });
  }

  end(text = ''): void {
    const request = this.#request;
    this.#response.end(text, () => {
      if (request.complete) return;
      // Closing on what it still sends would cut off our answer.
      request.resume();
      request.socket.setTimeout(LINGER_MS, () => request.socket.destroy());
    });
  }

  destroy(): void {
    this.#request.destroy();
  }
}
