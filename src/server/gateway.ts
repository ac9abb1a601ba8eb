/**
 * The JSON gateway: every method of the services by POST, streams as one JSON object per line.
 *
 * Requests and answers are mapped by the messages' own descriptors, so no method can be forgotten
 * and none has a second door: the handlers are those of gRPC.
 */
import { abortable, linkAbort } from '../base/abort.ts';
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
import { type Callers, certificateName } from './callers.ts';
import type { Exchange } from './exchange.ts';
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

  async serve(method: Method, exchange: Exchange): Promise<void> {
    if (exchange.method !== 'POST') {
      exchange.head(405, { allow: 'POST', 'content-type': 'text/plain' });
      exchange.end('Method Not Allowed\n');
      return;
    }
    const over = linkAbort(exchange.signal);
    const cancelDeadline = deadline(exchange, over.controller, this.#options.clock);
    try {
      const call = this.#call(exchange, over.signal);
      const handler = this.#options.handlers.get(method.path)!;
      if (handler.kind === 'unary') await this.#unary(handler, exchange, call);
      else await this.#stream(handler, exchange, call);
    } catch (error) {
      this.#fail(exchange, error);
    } finally {
      cancelDeadline();
      over.unlink();
    }
  }

  #call(exchange: Exchange, signal: AbortSignal): Call {
    const token = exchange.header('grpc-metadata-token') ?? exchange.header('authorization');
    const identity = this.#options.callers.identify({ token, tls: exchange.tls });
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
    const { address, connection, tls } = exchange;
    return {
      identity,
      signal,
      address,
      connection,
      certificate: certificateName(tls),
      header: (name) => exchange.header(name),
    };
  }

  async #unary(handler: UnaryHandler, exchange: Exchange, call: Call): Promise<void> {
    const body = await this.#body(exchange);
    await abortable(exchange.room(), call.signal);
    if (exchange.over) return;
    const { method } = handler;
    const answer = await handler.run(fromJson(method.request, body) as never, call);
    exchange.head(200, { 'content-type': JSON_TYPE });
    exchange.end(toJson(method.response, answer));
  }

  async #body(exchange: Exchange): Promise<string> {
    const { clock, messageBytesMax } = this.#options;
    const parts: Uint8Array[] = [];
    let length = 0;
    const patience = (): (() => void) =>
      clock.wakeAt(clock.now() + BODY_IDLE_MS, () => exchange.destroy());
    let cancel = patience();
    try {
      for await (const part of exchange.body) {
        cancel();
        cancel = patience();
        length += part.length;
        // JSON is larger than what it says, base64 by a third alone.
        if (length > messageBytesMax * 2) throw refusal('request is too large');
        if (!exchange.hold(part.length)) throw refusal('too many requests');
        parts.push(part);
      }
    } finally {
      // The answer may take as long as a lock is waited for.
      cancel();
    }
    return jsonText(concatBytes(...parts));
  }

  async #stream(handler: StreamHandler, exchange: Exchange, call: Call): Promise<void> {
    const { method } = handler;
    const requests =
      method.kind === 'bidi-stream'
        ? this.#objects(method, exchange)
        : this.#single(method, exchange, call);
    const begin = (): void => {
      if (!exchange.headSent) exchange.head(200, { 'content-type': JSON_TYPE });
    };
    for await (const answer of handler.run(requests as AsyncIterable<never>, call)) {
      if (exchange.over) return;
      begin();
      await exchange.write(streamResultJson(toJson(method.response, answer)));
    }
    if (exchange.over) return;
    begin();
    exchange.end();
  }

  async *#single(method: Method, exchange: Exchange, call: Call): AsyncGenerator<object> {
    const body = await this.#body(exchange);
    await abortable(exchange.room(), call.signal);
    if (exchange.over) return;
    yield fromJson(method.request, body);
  }

  async *#objects(method: Method, exchange: Exchange): AsyncGenerator<object> {
    const objects = new JsonObjects(this.#options.messageBytesMax * 2);
    for await (const part of exchange.body) {
      for (const text of objects.feed(part)) yield fromJson(method.request, text);
    }
    objects.end();
  }

  /** Before the first message the HTTP status tells; afterwards only a last line can. */
  #fail(exchange: Exchange, error: unknown): void {
    if (exchange.over) return;
    if (!HoldfastError.is(error)) this.#options.onFault(error);
    const status = statusOf(error);
    if (exchange.headSent) {
      exchange.end(streamErrorJson(status, httpText(status)));
      return;
    }
    exchange.head(httpStatusOf(status.code), { 'content-type': JSON_TYPE });
    exchange.end(errorJson(status));
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
function deadline(exchange: Exchange, over: AbortController, clock: Clock): () => void {
  const value = exchange.header('grpc-timeout');
  const timeoutMs = value === undefined ? undefined : parseTimeout(value);
  if (timeoutMs === undefined) return () => {};
  return clock.wakeAt(clock.now() + timeoutMs, () =>
    over.abort(new HoldfastError('deadline-exceeded', 'context deadline exceeded')),
  );
}
