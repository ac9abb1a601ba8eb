/** gRPC's own health service: the empty name is the whole server. */
import { abortable } from '../../base/abort.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { ServingStatus as Serving } from '../../wire/messages/gen/health.ts';
import { HealthService, METHODS } from '../../wire/messages/services.ts';
import { NOT_FOUND, plainRpcError } from '../../wire/messages/status.ts';
import type { Departure } from '../departure.ts';
import { type Handler, only, stream, unary } from './service.ts';

/** Whether the server takes requests, and a way to hear when that changes. */
export class Readiness {
  #ready = true;
  #change: Deferred<void> = deferred();

  get ready(): boolean {
    return this.#ready;
  }

  set(ready: boolean): void {
    if (ready === this.#ready) return;
    this.#ready = ready;
    this.#change.resolve();
    this.#change = deferred();
  }

  changed(): Promise<void> {
    return this.#change.promise;
  }
}

const SERVICES = new Set(['', ...METHODS.map((method) => method.service)]);

export function healthService(readiness: Readiness, departure: Departure): Handler[] {
  const status = (service: string): number => {
    if (!SERVICES.has(service)) return Serving.SERVICE_UNKNOWN;
    return readiness.ready ? Serving.SERVING : Serving.NOT_SERVING;
  };
  return [
    unary(HealthService.Check, async ({ service }) => {
      if (!SERVICES.has(service)) {
        throw plainRpcError(NOT_FOUND, `unknown service ${service}`, 'invalid-argument');
      }
      return { status: status(service) };
    }),
    stream(HealthService.Watch, async function* (requests, call) {
      const { service } = await only(requests);
      const over = departure.link(call.signal);
      try {
        for (;;) {
          const changed = readiness.changed();
          yield { status: status(service) };
          await abortable(changed, over.signal);
        }
      } finally {
        over.unlink();
      }
    }),
  ];
}
