/** Leases. The wire counts whole seconds; what the engine counts finer is rounded in its favour. */
import { HoldfastError } from '../../model/errors.ts';
import { leaseHex } from '../../model/lease.ts';
import type { Header, LeaseId } from '../../model/transaction.ts';
import { ttlToWire } from '../../wire/messages/convert.ts';
import type {
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponseInit,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponseInit,
} from '../../wire/messages/gen/rpc.ts';
import { LeaseService } from '../../wire/messages/services.ts';
import type { StreamCall } from '../../wire/net/grpc-server.ts';
import type { Backend, Call } from '../backend.ts';
import { type Handler, stream, unary } from './service.ts';

/** Shorter than the wire can say would end as zero, which means "gone". */
const TTL_SECONDS_MIN = 1;

export function leaseService(backend: Backend): Handler[] {
  return [
    unary(LeaseService.LeaseGrant, async (request, call) => {
      backend.gate.authenticated(call.identity);
      const ttlMs = Math.max(request.TTL, TTL_SECONDS_MIN) * 1_000;
      const grant = await backend.view(call).grantLease({ id: request.ID, ttlMs });
      backend.audit.owns(call, grant.id);
      return { header: backend.header(grant.header), ID: grant.id, TTL: ttlToWire(grant.ttlMs) };
    }),
    unary(LeaseService.LeaseRevoke, async (request, call) => {
      backend.gate.authenticated(call.identity);
      await backend.leaseKeys(request.ID, 'write', call);
      const header = await revoke(backend, request.ID, call);
      return { header: backend.header(header) };
    }),
    unary(LeaseService.LeaseTimeToLive, (request, call) => timeToLive(backend, request, call)),
    unary(LeaseService.LeaseLeases, async (_request, call) => {
      backend.admin(call);
      const { operator } = backend.engine;
      if (!operator) throw new HoldfastError('unsupported', 'this engine does not list its leases');
      const [ids, { header }] = [await operator.leases(), await backend.engine.status()];
      return { header: backend.header(header), leases: ids.map((ID) => ({ ID })) };
    }),
    stream(LeaseService.LeaseKeepAlive, (requests, call) => keepAlives(backend, requests, call), {
      direct: (frames, call) => framedKeepAlives(backend, frames, call),
    }),
  ];
}

/** An operator who ends a lease that is not his takes what it holds from somebody. */
function revoke(backend: Backend, id: LeaseId, call: Call): Promise<Header> {
  const others = backend.gate.operator(call.identity) && !backend.audit.isOwn(call, id);
  if (!others) return backend.view(call).revokeLease(id);
  const taking = { act: 'lease.revoke', subject: leaseHex(id), reason: '' };
  return backend.taken(call, taking, () => backend.view(call).revokeLease(id));
}

async function timeToLive(
  backend: Backend,
  { ID, keys }: LeaseTimeToLiveRequest,
  call: Call,
): Promise<LeaseTimeToLiveResponseInit> {
  backend.gate.authenticated(call.identity);
  if (keys) await backend.leaseKeys(ID, 'read', call);
  try {
    const info = await backend.view(call).leaseInfo(ID, { keys });
    return {
      header: backend.header(info.header),
      ID,
      TTL: Math.floor(info.remainingTtlMs / 1_000),
      grantedTTL: ttlToWire(info.grantedTtlMs),
      keys: info.keys,
    };
  } catch (error) {
    if (!HoldfastError.is(error, 'lease-not-found')) throw error;
    const { header } = await backend.engine.status();
    return { header: backend.header(header), ID, TTL: -1 };
  }
}

/** One answer for each request, in order; a lease that is gone is no error but a TTL of 0. */
async function* keepAlives(
  backend: Backend,
  requests: AsyncIterable<LeaseKeepAliveRequest>,
  call: Call,
): AsyncGenerator<LeaseKeepAliveResponseInit> {
  for await (const { ID } of backend.departure.whileHere(requests, call.signal)) {
    yield await keepAlive(backend, ID, call);
  }
}

function framedKeepAlives(backend: Backend, frames: StreamCall, call: Call): Promise<void> {
  return backend.departure.during(call.signal, async () => {
    for await (const { ID } of frames.requests<LeaseKeepAliveRequest>()) {
      const answer = keepAliveAtOnce(backend, ID, call) ?? (await keepAlive(backend, ID, call));
      if (!frames.send(answer)) await frames.drained();
    }
  });
}

/** Where nobody has to be asked and nothing waited for, which is nearly always. */
function keepAliveAtOnce(
  backend: Backend,
  ID: bigint,
  call: Call,
): LeaseKeepAliveResponseInit | undefined {
  const renewal = backend.gate.open ? backend.view(call).atOnce?.keepAlive(ID) : undefined;
  return renewal && { header: backend.header(renewal.header), ID, TTL: ttlToWire(renewal.ttlMs) };
}

async function keepAlive(
  backend: Backend,
  ID: bigint,
  call: Call,
): Promise<LeaseKeepAliveResponseInit> {
  backend.gate.authenticated(call.identity);
  await backend.leaseKeys(ID, 'write', call);
  try {
    const renewal = await backend.view(call).keepAlive(ID);
    return { header: backend.header(renewal.header), ID, TTL: ttlToWire(renewal.ttlMs) };
  } catch (error) {
    if (!HoldfastError.is(error, 'lease-not-found')) throw error;
    const { header } = await backend.engine.status();
    return { header: backend.header(header), ID };
  }
}
