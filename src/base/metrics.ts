/**
 * Counters, gauges and histograms in the Prometheus text format. Labels are few and bounded.
 *
 * What is asked for at every call is a few additions; everything else is put together when somebody
 * reads.
 */
export type Labels = Readonly<Record<string, string>>;

/** A value, several under different labels, or nothing to say at the moment. */
export type Reading = number | undefined | Iterable<readonly [Labels, number]>;

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** None: the family is left out. */
  lines(): Iterable<string>;
}

export interface Counter {
  add(labels?: Labels, amount?: number): void;
}

export interface Series {
  observe(seconds: number): void;
}

export interface Histogram {
  observe(seconds: number, labels?: Labels): void;
  /** The one of these labels, for whoever would ask for it at every call. */
  series(labels: Labels): Series;
}

/** From half a millisecond to eight seconds, each bound twice the last. */
const SECONDS_BOUNDS = Array.from({ length: 15 }, (_, i) => 0.0005 * 2 ** i);

export class Metrics {
  readonly #families: Family[] = [];

  /** `known` are there from the start, at zero, so that the first event is seen as a rise. */
  counter(name: string, help: string, known: readonly Labels[] = [{}]): Counter {
    const values = new Map<string, number>(known.map((labels) => [braces(labels), 0]));
    this.#add(name, help, 'counter', function* () {
      for (const [labels, value] of values) yield `${name}${labels} ${value}`;
    });
    return {
      add(labels, amount = 1) {
        const key = braces(labels);
        values.set(key, (values.get(key) ?? 0) + amount);
      },
    };
  }

  /** A counter that somebody else keeps. */
  count(name: string, help: string, read: () => Reading): void {
    this.#add(name, help, 'counter', () => readings(name, read()));
  }

  /** Read when asked for, so nothing has to be kept up to date. */
  gauge(name: string, help: string, read: () => Reading): void {
    this.#add(name, help, 'gauge', () => readings(name, read()));
  }

  /** Under several names where readers of other programs look for the same. */
  histogram(names: string | readonly string[], help: string): Histogram {
    const all = new Map<string, Buckets>();
    for (const name of typeof names === 'string' ? [names] : names) {
      this.#add(name, help, 'histogram', function* () {
        for (const buckets of all.values()) yield* buckets.lines(name);
      });
    }
    const series = (labels: Labels): Buckets => {
      const key = braces(labels);
      const known = all.get(key) ?? new Buckets(labels);
      all.set(key, known);
      return known;
    };
    return { series, observe: (seconds, labels = {}) => series(labels).observe(seconds) };
  }

  render(): string {
    const lines: string[] = [];
    for (const { name, help, type, lines: values } of this.#families) {
      const own = [...values()];
      if (own.length === 0) continue;
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...own);
    }
    return `${lines.join('\n')}\n`;
  }

  #add(name: string, help: string, type: Family['type'], lines: Family['lines']): void {
    if (this.#families.some((family) => family.name === name)) {
      throw new Error(`there is a metric ${name} already`);
    }
    this.#families.push({ name, help, type, lines });
  }
}

class Buckets implements Series {
  readonly #labels: Labels;
  readonly #counts: number[] = SECONDS_BOUNDS.map(() => 0);
  #sum = 0;
  #count = 0;

  constructor(labels: Labels) {
    this.#labels = labels;
  }

  observe(seconds: number): void {
    let place = 0;
    while (place < SECONDS_BOUNDS.length && seconds > SECONDS_BOUNDS[place]!) place++;
    if (place < SECONDS_BOUNDS.length) this.#counts[place]!++;
    this.#sum += seconds;
    this.#count++;
  }

  *lines(name: string): Iterable<string> {
    const labels = this.#labels;
    let below = 0;
    for (const [i, bound] of SECONDS_BOUNDS.entries()) {
      below += this.#counts[i]!;
      yield `${name}_bucket${braces({ ...labels, le: String(bound) })} ${below}`;
    }
    yield `${name}_bucket${braces({ ...labels, le: '+Inf' })} ${this.#count}`;
    yield `${name}_sum${braces(labels)} ${this.#sum}`;
    yield `${name}_count${braces(labels)} ${this.#count}`;
  }
}

function* readings(name: string, reading: Reading): Iterable<string> {
  if (reading === undefined) return;
  if (typeof reading === 'number') yield `${name} ${reading}`;
  else for (const [labels, value] of reading) yield `${name}${braces(labels)} ${value}`;
}

function braces(labels: Labels = {}): string {
  let parts = '';
  for (const name in labels) {
    parts += `${parts === '' ? '' : ','}${name}="${escapeLabel(labels[name]!)}"`;
  }
  return parts === '' ? '' : `{${parts}}`;
}

const TO_ESCAPE = /[\\"\n]/;

function escapeLabel(value: string): string {
  if (!TO_ESCAPE.test(value)) return value;
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
