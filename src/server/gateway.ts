/**
 * The JSON gateway: every method of the services by POST, streams as one JSON object per line.
 *
 * Requests and answers are mapped by the messages' own descriptors, so no method can be forgotten
 * and none has a second door: the handlers are those of gRPC.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import { concatBytes } from '../base/bytes.ts';
import type { Clock } from '../base/clock.ts';
import { HoldfastError } from '../model/errors.ts';
import { parseTimeout } from '../wire/grpc/timeout.ts';
import type { Method } from '../wire/messages/descriptor.ts';
import {
  errorJson,
  fromJson,
  httpStatusOf,
  METHOD_BY_JSON_PATH,
  plainRpcError,
  type RpcStatus,
  statusOf,
  streamErrorJson,
  streamResultJson,
  toJson,
} from '../wire/messages/index.ts';
import { JsonObjects, jsonText } from '../wire/messages/json-text.ts';
import { refusal } from './access/refusal.ts';
import type { Call } from './backend.ts';
import type { Callers } from './callers.ts';
import type { Handler, StreamHandler, UnaryHandler } from './services/service.ts';

export interface GatewayOptions {
  readonly clock: Clock;
  readonly handlers: ReadonlyMap<string, Handler>;
  readonly callers: Callers;
  readonly messageBytesMax: number;
  /** Whether a common name in a client's certificate is refused here, as etcd does. */
  readonly refuseCertificateUsers: () => boolean;
  readonly onFault: (error: unknown) => void;
}

const OLD_PREFIX = '/v3beta/';
/** A body that stands still for so long will not come. */
const BODY_IDLE_MS = 30_000;
const JSON_TYPE = 'application/json';

export class Gateway {
  readonly #options: GatewayOptions;

  constructor(options: GatewayOptions) {
    this.#options = options;
  }

  /** The method behind a path, if it is one of the gateway's. */
  find(path: string): Method | undefined {
    const current = path.startsWith(OLD_PREFIX) ? `/v3/${path.slice(OLD_PREFIX.length)}` : path;
    return METHOD_BY_JSON_PATH.get(current);
  }

  async serve(method: Method, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'POST') {
      response.writeHead(405, { allow: 'POST', 'content-type': 'text/plain' });
      response.end('Method Not Allowed\n');
      return;
    }
    const over = new AbortController();
    response.once('close', () =>
      over.abort(new HoldfastError('cancelled', 'the caller went away')),
    );
    const cancelDeadline = deadline(request, over, this.#options.clock);
    try {
      const call = this.#call(request, over.signal);
      const handler = this.#options.handlers.get(method.path)!;
      if (handler.kind === 'unary') await this.#unary(handler, request, response, call);
      else await this.#stream(handler, request, response, call);
    } catch (error) {
      this.#fail(response, error);
    } finally {
      cancelDeadline();
    }
  }

  #call(request: IncomingMessage, signal: AbortSignal): Call {
    const socket = request.socket;
    const tls = socket instanceof TLSSocket ? socket : undefined;
    const token = headerOf(request, 'grpc-metadata-token') ?? headerOf(request, 'authorization');
    const identity = this.#options.callers.identify(token, tls);
    if (
      token === undefined &&
      identity.user !== undefined &&
      this.#options.refuseCertificateUsers()
    ) {
      throw plainRpcError(
        3,
        'CommonName of client sending a request against gateway will be ignored and not used as expected',
        'invalid-argument',
      );
    }
    return {
      identity,
      signal,
      address: socket.remoteAddress ?? '',
      connection: {
        onEnd: (undo) => {
          if (socket.destroyed) undo();
          else socket.once('close', undo);
        },
      },
    };
  }

  async #unary(
    handler: UnaryHandler,
    request: IncomingMessage,
    response: ServerResponse,
    call: Call,
  ): Promise<void> {
    const body = await this.#body(request);
    const { method } = handler;
    const answer = await handler.run(fromJson(method.request, body) as never, call);
    response.writeHead(200, { 'content-type': JSON_TYPE });
    response.end(toJson(method.response, answer));
  }

  async #body(request: IncomingMessage): Promise<string> {
    const parts: Uint8Array[] = [];
    let length = 0;
    request.setTimeout(BODY_IDLE_MS, () => request.destroy());
    for await (const part of request as AsyncIterable<Uint8Array>) {
      length += part.length;
      // JSON is larger than what it says, base64 by a third alone.
      if (length > this.#options.messageBytesMax * 2) throw refusal('request is too large');
      parts.push(part);
    }
    // The answer may take as long as a lock is waited for.
    request.setTimeout(0);
    return jsonText(concatBytes(...parts));
  }

  async #stream(
    handler: StreamHandler,
    request: IncomingMessage,
    response: ServerResponse,
    call: Call,
  ): Promise<void> {
    const { method } = handler;
    const requests =
      method.kind === 'bidi-stream'
        ? this.#objects(method, request)
        : this.#single(method, request);
    for await (const answer of handler.run(requests as AsyncIterable<never>, call)) {
      if (response.destroyed) return;
      if (!response.headersSent) {
        response.writeHead(200, { 'content-type': JSON_TYPE });
        response.flushHeaders();
      }
      const room = response.write(streamResultJson(toJson(method.response, answer)));
      if (!room) await drained(response);
    }
    if (!response.headersSent) response.writeHead(200, { 'content-type': JSON_TYPE });
    response.end();
  }

  async *#single(method: Method, request: IncomingMessage): AsyncGenerator<object> {
    yield fromJson(method.request, await this.#body(request));
  }

  async *#objects(method: Method, request: IncomingMessage): AsyncGenerator<object> {
    const objects = new JsonObjects(this.#options.messageBytesMax * 2);
    for await (const part of request as AsyncIterable<Uint8Array>) {
      for (const text of objects.feed(part)) yield fromJson(method.request, text);
    }
    objects.end();
  }

  /** Before the first message the HTTP status tells; afterwards only a last line can. */
  #fail(response: ServerResponse, error: unknown): void {
    if (!HoldfastError.is(error)) this.#options.onFault(error);
    const status = statusOf(error);
    if (response.destroyed) return;
    if (response.headersSent) {
      response.end(streamErrorJson(status, httpText(status)));
      return;
    }
    response.writeHead(httpStatusOf(status.code), { 'content-type': JSON_TYPE });
    response.end(errorJson(status));
  }
}

const HTTP_TEXTS: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  408: 'Request Timeout',
  409: 'Conflict',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

function httpText({ code }: RpcStatus): string {
  return HTTP_TEXTS[httpStatusOf(code)] ?? 'Internal Server Error';
}

/** `Grpc-Timeout` bounds a call as it does on gRPC. */
function deadline(request: IncomingMessage, over: AbortController, clock: Clock): () => void {
  const value = headerOf(request, 'grpc-timeout');
  const timeoutMs = value === undefined ? undefined : parseTimeout(value);
  if (timeoutMs === undefined) return () => {};
  return clock.wakeAt(clock.now() + timeoutMs, () =>
    over.abort(new HoldfastError('deadline-exceeded', 'context deadline exceeded')),
  );
}

function headerOf(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.once('drain', done);
    response.once('close', done);
  });
}
