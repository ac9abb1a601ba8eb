/**
 * OpenTelemetry: a tracer on its API, which the program brings along.
 *
 *   const hf = await connect('etcd://a:2379', { tracer: openTelemetry() });
 *
 * Only the API is used: which SDK collects the spans, which propagator writes the context into
 * requests and where it all goes is what the program has registered with it.
 */
import {
  type Span as ApiSpan,
  type AttributeValue,
  context,
  propagation,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  type TextMapSetter,
  trace,
} from '@opentelemetry/api';
import type { Attributes, ReadField, Span, SpanOptions, Tracer } from './base/tracer.ts';

export type { Attributes, ReadField, Span, SpanOptions, Tracer } from './base/tracer.ts';

const VERSION = '0.1.0';

/** Spans of this package are told to the tracer of this name. */
const SCOPE = 'holdfast';

const GETTER: TextMapGetter<ReadField> = {
  get: (read, name) => read(name.toLowerCase()),
  keys: () => [],
};

const SETTER: TextMapSetter<[string, string][]> = {
  set: (fields, name, value) => {
    fields.push([name.toLowerCase(), value]);
  },
};

/** The tracer of what is registered with OpenTelemetry's API, now or later. */
export function openTelemetry(): Tracer {
  const tracer = trace.getTracer(SCOPE, VERSION);
  return {
    start(name, options = {}) {
      return new OpenSpan(tracer.startSpan(name, apiOptions(options), parentOf(options)));
    },
    within(span, work) {
      if (!(span instanceof OpenSpan)) return work();
      return context.with(trace.setSpan(context.active(), span.api), work);
    },
    fields() {
      const fields: [string, string][] = [];
      propagation.inject(context.active(), fields, SETTER);
      return fields;
    },
  };
}

function parentOf({ from }: SpanOptions): ReturnType<typeof context.active> {
  const active = context.active();
  return from ? propagation.extract(active, from, GETTER) : active;
}

function apiOptions({ kind, attributes = {} }: SpanOptions): {
  readonly kind: SpanKind;
  readonly attributes: Record<string, AttributeValue>;
} {
  return { kind: kind === 'server' ? SpanKind.SERVER : SpanKind.INTERNAL, attributes };
}

class OpenSpan implements Span {
  readonly api: ApiSpan;

  constructor(api: ApiSpan) {
    this.api = api;
  }

  set(attributes: Attributes): void {
    this.api.setAttributes(attributes);
  }

  event(name: string, attributes: Attributes = {}): void {
    this.api.addEvent(name, attributes);
  }

  fail(error: unknown): void {
    const exception = error instanceof Error ? error : new Error(String(error));
    this.api.recordException(exception);
    this.api.setStatus({ code: SpanStatusCode.ERROR, message: exception.message });
  }

  end(): void {
    this.api.end();
  }
}
