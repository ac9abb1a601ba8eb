/** What is told of the process: memory, processor, descriptors, and how late its event loop runs. */
import { readdirSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Clock } from '../../base/clock.ts';
import type { Labels, Metrics } from '../../base/metrics.ts';

const LAG_RESOLUTION_MS = 20;
/** A late turn is seen for so long, however often somebody reads. */
const LAG_WINDOW_MS = 60_000;
const QUANTILES = [0.5, 0.99, 1];

/** The answer ends the measurement. */
export function processFigures(metrics: Metrics, clock: Clock): () => void {
  const startedAtSeconds = clock.wall() / 1_000;
  metrics.gauge('process_start_time_seconds', 'When it began to serve.', () => startedAtSeconds);
  metrics.gauge('process_resident_memory_bytes', 'Memory of the process.', () =>
    process.memoryUsage.rss(),
  );
  metrics.gauge(
    'nodejs_heap_size_used_bytes',
    'Heap in use.',
    () => process.memoryUsage().heapUsed,
  );
  metrics.count('process_cpu_seconds_total', 'Processor time, of user and system.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1_000_000;
  });
  metrics.gauge('process_open_fds', 'Open file descriptors.', openDescriptors);
  return lagFigures(metrics, clock);
}

/** Only Linux tells. */
function openDescriptors(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return undefined;
  }
}

function lagFigures(metrics: Metrics, clock: Clock): () => void {
  const delays = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  delays.enable();
  let sinceMs = clock.now();
  metrics.gauge(
    'holdfast_eventloop_lag_seconds',
    'How late the event loop ran, over the last minute at most.',
    () => {
      const lags = QUANTILES.map((quantile): readonly [Labels, number] => [
        { quantile: String(quantile) },
        lateness(quantile === 1 ? delays.max : delays.percentile(quantile * 100)),
      ]);
      if (clock.now() - sinceMs > LAG_WINDOW_MS) {
        delays.reset();
        sinceMs = clock.now();
      }
      return lags;
    },
  );
  return () => delays.disable();
}

/** The monitor tells the whole distance between two of its ticks, in nanoseconds. */
function lateness(nanoseconds: number): number {
  return Math.max(0, nanoseconds / 1e9 - LAG_RESOLUTION_MS / 1_000);
}
