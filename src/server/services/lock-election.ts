/**
 * The Lock and Election services. Their errors travel as plain text without a code of their own, as
 * etcd's do.
 *
 * Who gives no lease gets one that lives as long as its connection: renewed here, ended with it. A
 * lease that nobody renews would let the lock vanish under its holder.
 */
import { printable } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import type { Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Header, LeaseId } from '../../model/transaction.ts';
import type { LeaderKey as WireLeaderKey } from '../../wire/messages/gen/election.ts';
import { ElectionService, LockService } from '../../wire/messages/services.ts';
import { plainRpcError, statusOf, UNAVAILABLE, UNKNOWN } from '../../wire/messages/status.ts';
import { leaseIn } from '../audit/takings.ts';
import type { Backend, Call } from '../backend.ts';
import * as elections from './elections.ts';
import { linePrefix } from './line.ts';
import { type Handler, only, stream, unary } from './service.ts';
import { Stays } from './stays.ts';

const CONNECTION_LEASE_TTL_MS = 15_000;

export function lockService(backend: Backend): Handler[] {
  const stays = new Stays(backend.options.clock, backend.options.locks);
  return [
    unary(LockService.Lock, ({ name, lease }, call) =>
      plainly(async () => {
        mayStandIn(backend, name, call);
        const id = lease || (await connectionLease(backend, call));
        await backend.leaseKeys(id, 'write', call);
        const lock = (wait: elections.Wait): ReturnType<typeof elections.lock> =>
          elections.lock(backend.view(call), { name, lease: id }, wait);
        const { key, header } = await stays.wait(
          () => inLine(backend, call, lock),
          (granted) => granted.key,
        );
        return { header: backend.header(header), key };
      }),
    ),
    unary(LockService.Unlock, ({ key }, call) =>
      plainly(async () => {
        backend.gate.keys(call.identity, [{ right: 'write', range: { key } }]);
        const unlock = (): Promise<Header> => elections.unlock(backend.view(call), key);
        const header = await giveUp(backend, { key, call, how: 'unlock' }, unlock);
        stays.ended(key);
        return { header: backend.header(header) };
      }),
    ),
  ];
}

export function electionService(backend: Backend): Handler[] {
  const stays = new Stays(backend.options.clock, backend.options.locks);
  const ruled = (leader: WireLeaderKey | undefined, call: Call): elections.LeaderKey => {
    if (!leader) {
      throw new HoldfastError('invalid-argument', '"leader" field must be provided');
    }
    backend.gate.keys(call.identity, [{ right: 'write', range: { key: leader.key } }]);
    return leader;
  };
  return [
    unary(ElectionService.Campaign, ({ name, lease, value }, call) =>
      plainly(async () => {
        mayStandIn(backend, name, call);
        const id = lease || (await connectionLease(backend, call));
        await backend.leaseKeys(id, 'write', call);
        const request = { name, lease: id, value };
        const campaign = (wait: elections.Wait): ReturnType<typeof elections.campaign> =>
          elections.campaign(backend.view(call), request, wait);
        const won = await stays.wait(
          () => inLine(backend, call, campaign),
          ({ leader }) => leader.key,
        );
        return { header: backend.header(won.header), leader: won.leader };
      }),
    ),
    unary(ElectionService.Proclaim, ({ leader, value }, call) =>
      plainly(async () => {
        const own = ruled(leader, call);
        const header = await elections.proclaim(backend.view(call), own, value);
        return { header: backend.header(header) };
      }),
    ),
    unary(ElectionService.Resign, ({ leader }, call) =>
      plainly(async () => {
        const own = ruled(leader, call);
        const resign = (): Promise<Header> => elections.resign(backend.view(call), own);
        const { key } = own;
        const header = await giveUp(backend, { key, call, how: 'resign' }, resign);
        stays.ended(key);
        return { header: backend.header(header) };
      }),
    ),
    unary(ElectionService.Leader, ({ name }, call) =>
      plainly(async () => {
        mayRead(backend, name, call);
        const { header, kv } = await elections.leader(backend.view(call), name, call.signal);
        return { header: backend.header(header), kv };
      }),
    ),
    stream(ElectionService.Observe, async function* (requests, call) {
      const { name } = await only(requests);
      mayRead(backend, name, call);
      const over = backend.departure.link(call.signal);
      try {
        for await (const { header, kv } of elections.observe(
          backend.view(call),
          name,
          over.signal,
        )) {
          yield { header: backend.header(header), kv };
        }
      } finally {
        over.unlink();
      }
    }),
  ];
}

function mayStandIn(backend: Backend, name: Uint8Array, call: Call): void {
  const range = { key: linePrefix(name), end: lineEnd(name) };
  backend.gate.keys(call.identity, [
    { right: 'write', range },
    { right: 'read', range },
  ]);
}

function mayRead(backend: Backend, name: Uint8Array, call: Call): void {
  const range = { key: linePrefix(name), end: lineEnd(name) };
  backend.gate.keys(call.identity, [{ right: 'read', range }]);
}

/** `/` raised by one: the end of everything below the name. */
function lineEnd(name: Uint8Array): Uint8Array {
  const end = linePrefix(name);
  end[end.length - 1]!++;
  return end;
}

/** What an operator gives up for another, by the lease that the claim names, is told. */
function giveUp(
  backend: Backend,
  { key, call, how }: { readonly key: Uint8Array; readonly call: Call; readonly how: string },
  work: () => Promise<Header>,
): Promise<Header> {
  const lease = backend.gate.operator(call.identity) ? leaseIn(key) : undefined;
  if (lease === undefined || backend.audit.isOwn(call, lease)) return work();
  return backend.taken(call, { act: `claim.${how}`, subject: printable(key), reason: '' }, work);
}

/**
 * Every refusal of these services has the code for "unknown"; clients read the text. Only what may
 * be tried again elsewhere says so.
 */
async function plainly<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { code, message } = statusOf(error);
    const said = code === UNAVAILABLE ? UNAVAILABLE : UNKNOWN;
    throw plainRpcError(said, message, HoldfastError.from(error).code);
  }
}

/**
 * Waiting for one's turn, until the server leaves. The claim stays where it is: who comes back with
 * the same lease, to whichever server, finds its place again.
 */
async function inLine<T>(
  backend: Backend,
  call: Call,
  work: (wait: elections.Wait) => Promise<T>,
): Promise<T> {
  const over = backend.departure.link(call.signal);
  try {
    return await work({ signal: over.signal, abandoned: call.signal });
  } finally {
    over.unlink();
  }
}

async function connectionLease(backend: Backend, call: Call): Promise<LeaseId> {
  const engine = backend.view(call);
  const { id } = await engine.grantLease({ ttlMs: CONNECTION_LEASE_TTL_MS });
  backend.audit.owns(call, id);
  const stop = keepRenewing(engine, id, backend.options.clock);
  call.connection.onEnd(() => {
    stop();
    // A lease that is gone, or an engine that is, needs no revocation.
    engine.revokeLease(id).catch(() => {});
  });
  return id;
}

function keepRenewing(engine: Engine, id: LeaseId, clock: Clock): () => void {
  let cancel = (): void => {};
  let stopped = false;
  const renew = (): void => {
    engine
      .keepAlive(id)
      .catch((error: unknown) => {
        stopped ||= HoldfastError.is(error, 'lease-not-found');
      })
      .finally(plan);
  };
  const plan = (): void => {
    if (!stopped) cancel = clock.wakeAt(clock.now() + CONNECTION_LEASE_TTL_MS / 3, renew);
  };
  plan();
  return () => {
    stopped = true;
    cancel();
  };
}
