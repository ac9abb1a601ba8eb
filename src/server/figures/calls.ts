/** What is counted of calls, under our names and under those of etcd's gRPC library. */
import type { Labels, Metrics, Series } from '../../base/metrics.ts';
import type { Method } from '../../wire/messages/descriptor.ts';
import { METHODS } from '../../wire/messages/services.ts';

/** As the Go library writes the codes. */
const CODE_NAMES = [
  ...['OK', 'Canceled', 'Unknown', 'InvalidArgument', 'DeadlineExceeded', 'NotFound'],
  ...['AlreadyExists', 'PermissionDenied', 'ResourceExhausted', 'FailedPrecondition', 'Aborted'],
  ...['OutOfRange', 'Unimplemented', 'Internal', 'Unavailable', 'DataLoss', 'Unauthenticated'],
];
const UNKNOWN = 2;

/** Writes go through consensus in etcd; here, through the store's one writer. */
const WRITES = new Set(
  ['KV/Put', 'KV/DeleteRange', 'KV/Txn', 'KV/Compact', 'Lease/LeaseGrant', 'Lease/LeaseRevoke'].map(
    (name) => `/etcdserverpb.${name}`,
  ),
);
/** Codes that say that the server, and not the request, was at fault. */
const FAULTS = new Set([UNKNOWN, 13, 14, 15]);

interface MethodFigures {
  readonly path: string;
  readonly labels: Labels;
  readonly codes: number[];
  readonly took: Series;
  started: number;
}

export class CallFigures {
  readonly #methods = new Map<string, MethodFigures>();

  constructor(metrics: Metrics) {
    const seconds = metrics.histogram('holdfast_call_seconds', 'Time from request to answer.');
    for (const method of METHODS) {
      const took = lazySeries(() => seconds.series({ method: method.path }));
      const labels = labelsOf(method);
      const codes = CODE_NAMES.map(() => 0);
      this.#methods.set(method.path, { path: method.path, labels, codes, took, started: 0 });
    }
    metrics.count('holdfast_calls_total', 'Calls that ended, by method and gRPC code.', () =>
      this.#ended(({ path }, code) => ({ method: path, code: String(code) })),
    );
    metrics.count('grpc_server_handled_total', 'Calls that ended, as etcd counts them.', () =>
      this.#ended(({ labels }, code) => ({ ...labels, grpc_code: CODE_NAMES[code]! })),
    );
    metrics.count(
      'grpc_server_started_total',
      'Streams that began; of unary calls, those that ended.',
      () => this.#started(),
    );
    metrics.count(
      'etcd_server_proposals_failed_total',
      'Writes that ended with a fault of the server.',
      () => this.#failedWrites(),
    );
  }

  /** A stream begins; how many are open is what has started and not ended. */
  streamStarted(path: string): void {
    const method = this.#methods.get(path);
    if (method) method.started++;
  }

  ended(path: string, code: number, seconds: number): void {
    const method = this.#methods.get(path);
    if (!method) return;
    method.codes[code < CODE_NAMES.length ? code : UNKNOWN]!++;
    method.took.observe(seconds);
  }

  *#ended(
    labelsOf: (method: MethodFigures, code: number) => Labels,
  ): Iterable<readonly [Labels, number]> {
    for (const method of this.#methods.values()) {
      for (const [code, count] of method.codes.entries()) {
        if (count > 0) yield [labelsOf(method, code), count];
      }
    }
  }

  *#started(): Iterable<readonly [Labels, number]> {
    for (const { labels, codes, started } of this.#methods.values()) {
      const ended = codes.reduce((sum, count) => sum + count, 0);
      const streams = labels.grpc_type !== 'unary';
      if (started + ended > 0) yield [labels, streams ? started : ended];
    }
  }

  #failedWrites(): number {
    let failed = 0;
    for (const path of WRITES) {
      const { codes = [] } = this.#methods.get(path) ?? {};
      for (const code of FAULTS) failed += codes[code] ?? 0;
    }
    return failed;
  }
}

function labelsOf({ path, kind }: Method): Labels {
  const [, service = '', method = ''] = path.split('/');
  return { grpc_type: kind.replace('-', '_'), grpc_service: service, grpc_method: method };
}

/** A method that nobody calls has no buckets to show. */
function lazySeries(make: () => Series): Series {
  let series: Series | undefined;
  return {
    observe(seconds) {
      series ??= make();
      series.observe(seconds);
    },
  };
}
