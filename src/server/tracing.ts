/**
 * A span for each call, on gRPC and through the JSON gateway alike, as part of what its caller said
 * (W3C trace context in the metadata or headers). Without a tracer the handlers stay as they are.
 */
import type { Span, Tracer } from '../base/tracer.ts';
import type { Method } from '../wire/messages/descriptor.ts';
import { statusOf } from '../wire/messages/status.ts';
import type { Call } from './backend.ts';
import type { Handler, StreamHandler, UnaryHandler } from './services/service.ts';

export type Handlers = ReadonlyMap<string, Handler>;

export function traced(handlers: Handlers, tracer: Tracer | undefined): Handlers {
  if (!tracer) return handlers;
  return new Map(
    [...handlers].map(([path, handler]) => [
      path,
      handler.kind === 'unary' ? tracedUnary(handler, tracer) : tracedStream(handler, tracer),
    ]),
  );
}

/** What OpenTelemetry calls the parts of a call. Keys and values of the request stay out. */
function begin(tracer: Tracer, { path }: Method, call: Call): Span {
  const [, service = '', method = ''] = path.split('/');
  return tracer.start(`${service}/${method}`, {
    kind: 'server',
    from: (name) => call.header(name),
    attributes: { 'rpc.system': 'grpc', 'rpc.service': service, 'rpc.method': method },
  });
}

function finish(span: Span, failure?: { readonly error: unknown }): void {
  const code = failure ? statusOf(failure.error).code : 0;
  span.set({ 'rpc.grpc.status_code': code });
  if (failure) span.fail(failure.error);
  span.end();
}

function tracedUnary(handler: UnaryHandler, tracer: Tracer): UnaryHandler {
  return {
    ...handler,
    async run(request, call) {
      const span = begin(tracer, handler.method, call);
      try {
        const answer = await tracer.within(span, () => handler.run(request, call));
        finish(span);
        return answer;
      } catch (error) {
        finish(span, { error });
        throw error;
      }
    },
  };
}

function tracedStream(handler: StreamHandler, tracer: Tracer): StreamHandler {
  const { direct } = handler;
  return {
    ...handler,
    run: (requests, call) =>
      answers(tracer, begin(tracer, handler.method, call), () => handler.run(requests, call)),
    direct:
      direct &&
      (async (frames, call) => {
        const span = begin(tracer, handler.method, call);
        try {
          await tracer.within(span, () => direct(frames, call));
          finish(span);
        } catch (error) {
          finish(span, { error });
          throw error;
        }
      }),
  };
}

/** A generator runs in the context of whoever asks for its next answer: that is made the span's. */
async function* answers(
  tracer: Tracer,
  span: Span,
  run: () => AsyncIterable<object>,
): AsyncGenerator<object> {
  let failure: { readonly error: unknown } | undefined;
  const iterator = tracer.within(span, run)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await tracer.within(span, () => iterator.next());
      if (next.done) return;
      yield next.value;
    }
  } catch (error) {
    failure = { error };
    throw error;
  } finally {
    await iterator.return?.();
    finish(span, failure);
  }
}
