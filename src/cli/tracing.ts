/**
 * Tracing of the server: there is a tracer when the process was started with an OpenTelemetry SDK
 * (`node --import ./tracing.js …`), which shows in the API's global, and none otherwise.
 */
import type { Tracer } from '../base/tracer.ts';
import type { Log } from '../server/serve.ts';

/** Where version 1 of the API keeps what is registered with it. */
const API_GLOBAL = Symbol.for('opentelemetry.js.api.1');

export async function tracerOfProcess(log: Log): Promise<Tracer | undefined> {
  const registered: unknown = Reflect.get(globalThis, API_GLOBAL);
  if (typeof registered !== 'object' || registered === null || !('trace' in registered)) {
    return undefined;
  }
  try {
    const { openTelemetry } = await import('../opentelemetry.ts');
    log('info', 'tracing with OpenTelemetry');
    return openTelemetry();
  } catch (error) {
    const reason = (error as Error).message;
    log('warn', 'no tracing: @opentelemetry/api cannot be loaded beside holdfast', { reason });
    return undefined;
  }
}
