/** Counters, gauges and histograms in the Prometheus text format. Labels are few and bounded. */
export type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  render(): Iterable<string>;
}

export interface Counter {
  add(labels?: Labels, amount?: number): void;
}

export interface Histogram {
  observe(seconds: number, labels?: Labels): void;
}

/** From half a millisecond to eight seconds, each bound twice the last. */
const SECONDS_BOUNDS = Array.from({ length: 15 }, (_, i) => 0.0005 * 2 ** i);

export class Metrics {
  readonly #families: Family[] = [];

  counter(name: string, help: string): Counter {
    const values = new Map<string, number>();
    this.#families.push({
      name,
      help,
      type: 'counter',
      *render() {
        if (values.size === 0) yield `${name} 0`;
        for (const [labels, value] of values) yield `${name}${labels} ${value}`;
      },
    });
    return {
      add(labels, amount = 1) {
        const key = braces(labels);
        values.set(key, (values.get(key) ?? 0) + amount);
      },
    };
  }

  /** Read when asked for, so nothing has to be kept up to date. */
  gauge(name: string, help: string, read: () => number): void {
    this.#families.push({
      name,
      help,
      type: 'gauge',
      *render() {
        yield `${name} ${read()}`;
      },
    });
  }

  histogram(name: string, help: string): Histogram {
    const series = new Map<
      string,
      { buckets: number[]; sum: number; count: number; labels: Labels }
    >();
    this.#families.push({
      name,
      help,
      type: 'histogram',
      *render() {
        for (const { buckets, sum, count, labels } of series.values()) {
          let below = 0;
          for (const [i, bound] of SECONDS_BOUNDS.entries()) {
            below += buckets[i]!;
            yield `${name}_bucket${braces({ ...labels, le: String(bound) })} ${below}`;
          }
          yield `${name}_bucket${braces({ ...labels, le: '+Inf' })} ${count}`;
          yield `${name}_sum${braces(labels)} ${sum}`;
          yield `${name}_count${braces(labels)} ${count}`;
        }
      },
    });
    return {
      observe(seconds, labels = {}) {
        const key = braces(labels);
        const entry = series.get(key) ?? {
          buckets: SECONDS_BOUNDS.map(() => 0),
          sum: 0,
          count: 0,
          labels,
        };
        series.set(key, entry);
        let place = 0;
        while (place < SECONDS_BOUNDS.length && seconds > SECONDS_BOUNDS[place]!) place++;
        if (place < SECONDS_BOUNDS.length) entry.buckets[place]!++;
        entry.sum += seconds;
        entry.count++;
      },
    };
  }

  render(): string {
    const lines: string[] = [];
    for (const family of this.#families) {
      lines.push(`# HELP ${family.name} ${family.help}`, `# TYPE ${family.name} ${family.type}`);
      lines.push(...family.render());
    }
    return `${lines.join('\n')}\n`;
  }
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
