/**
 * Spans, as far as this package makes any: whoever is given a tracer tells it what happens, whoever
 * is given none does nothing more at all.
 *
 * The shape is our own and small, so that no room depends on a tracing library; the door
 * `holdfast/opentelemetry` makes a tracer of OpenTelemetry's API.
 */
export type Attributes = Readonly<Record<string, string | number | boolean>>;

export interface Span {
  set(attributes: Attributes): void;
  /** Something that happened while it lasted. */
  event(name: string, attributes?: Attributes): void;
  /** Why it went wrong. It has to be ended all the same. */
  fail(error: unknown): void;
  /** Once. */
  end(): void;
}

/** A field of a request by its name in lower case. */
export type ReadField = (name: string) => string | undefined;

export interface SpanOptions {
  /** @default internal */
  readonly kind?: 'internal' | 'server';
  readonly attributes?: Attributes;
  /** Fields of a request, in which its caller may have said what it belongs to. */
  readonly from?: ReadField;
}

export interface Tracer {
  /** Below what `from` says, or else below the span that is active here. */
  start(name: string, options?: SpanOptions): Span;
  /** Runs `work`, and all that it waits for, with this span as the active one. */
  within<T>(span: Span, work: () => T): T;
  /** What a request must carry so that its receiver can go on from the active span. */
  fields(): readonly (readonly [string, string])[];
}
