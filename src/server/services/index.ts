/** Every service of a server, by gRPC path. */
import { METHODS } from '../../wire/messages/services.ts';
import { audited } from '../audit/audited.ts';
import type { Backend } from '../backend.ts';
import { auditService } from './audit.ts';
import { authService } from './auth.ts';
import { authorityService } from './authority.ts';
import { clusterService } from './cluster.ts';
import { healthService, type Readiness } from './health.ts';
import { kvService } from './kv.ts';
import { leaseService } from './lease.ts';
import { electionService, lockService } from './lock-election.ts';
import { maintenanceService } from './maintenance.ts';
import type { Handler } from './service.ts';
import { watchService } from './watch.ts';

export function services(backend: Backend, readiness: Readiness): ReadonlyMap<string, Handler> {
  const handlers = [
    ...kvService(backend),
    ...watchService(backend),
    ...leaseService(backend),
    ...clusterService(backend),
    ...maintenanceService(backend),
    ...authService(backend),
    ...lockService(backend),
    ...electionService(backend),
    ...healthService(readiness, backend.departure),
    ...authorityService(backend),
    ...auditService(backend),
  ].map((handler) => audited(handler, backend));
  const table = new Map(handlers.map((handler) => [handler.method.path, handler]));
  for (const { path } of METHODS) {
    if (!table.has(path)) throw new Error(`no service answers ${path}`);
  }
  return table;
}
