/**
 * One request of plain HTTP and its answer, whichever version of HTTP brought it.
 *
 * What is answered to plain HTTP, the gateway and the pages, knows nothing below this.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Connection } from './backend.ts';

export type Fields = Readonly<Record<string, string>>;

export interface Exchange {
  readonly method: string;
  /** Path and query as they came. */
  readonly target: string;
  /** The name under which the caller knows this server, with its port. */
  readonly host: string | undefined;
  /** By its name in lower case. */
  header(name: string): string | undefined;
  readonly tls: TLSSocket | undefined;
  readonly address: string;
  readonly connection: Connection;
  /** Aborts when the caller went away. */
  readonly signal: AbortSignal;

  /** To be read once; throws when the caller goes away before its end. */
  readonly body: AsyncIterable<Uint8Array>;
  /** May so many more bytes of this request be kept? */
  hold(bytes: number): boolean;
  /** Resolves when the caller has read enough of what it asked for before, or went away. */
  room(): Promise<void>;

  readonly headSent: boolean;
  /** Nothing can be sent any more. */
  readonly over: boolean;
  head(status: number, fields: Fields): void;
  /** After `head`. Resolves when there is room for more. */
  write(text: string): Promise<void>;
  /** After `head`. What the caller might still send is not waited for. */
  end(text?: string): void;
  /** Breaks it off. */
  destroy(): void;
}

/** What is held for as long as a socket lives. */
export function connectionOn(socket: Socket): Connection {
  return {
    onEnd(undo) {
      if (socket.destroyed) undo();
      else socket.once('close', undo);
    },
  };
}

export function respond(exchange: Exchange, status: number, type: string, body: string): void {
  exchange.head(status, { 'content-type': type });
  exchange.end(body);
}
