/**
 * Every method of every service as one table: the server registers by it, clients name methods with
 * it, and tests of access rules walk it so that no method can be forgotten.
 *
 *   METHODS                         all methods, in the order of the .proto files
 *   METHOD_BY_PATH.get(path)        by gRPC path, `/etcdserverpb.KV/Range`
 *   METHOD_BY_JSON_PATH.get(path)   by path of the JSON gateway, `/v3/kv/range`
 *   KVService.Range …               one method with its exact types
 */
import type { Method } from './descriptor.ts';
import { AuditService } from './gen/audit.ts';
import { AuthorityService } from './gen/authority.ts';
import { ElectionService } from './gen/election.ts';
import { HealthService } from './gen/health.ts';
import { LockService } from './gen/lock.ts';
import {
  AuthService,
  ClusterService,
  KVService,
  LeaseService,
  MaintenanceService,
  WatchService,
} from './gen/rpc.ts';

export {
  AuditService,
  AuthorityService,
  AuthService,
  ClusterService,
  ElectionService,
  HealthService,
  KVService,
  LeaseService,
  LockService,
  MaintenanceService,
  WatchService,
};

export const METHODS: readonly Method[] = [
  KVService,
  WatchService,
  LeaseService,
  ClusterService,
  MaintenanceService,
  AuthService,
  LockService,
  ElectionService,
  HealthService,
  AuthorityService,
  AuditService,
].flatMap((service) => Object.values(service) as Method[]);

export const METHOD_BY_PATH: ReadonlyMap<string, Method> = new Map(
  METHODS.map((method) => [method.path, method]),
);

export const METHOD_BY_JSON_PATH: ReadonlyMap<string, Method> = new Map(
  METHODS.flatMap((method) => method.json.map((path) => [path, method] as const)),
);
