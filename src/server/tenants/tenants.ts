/**
 * Tenants: who shares a server without sharing anything on it.
 *
 * A user named `acme/ann` belongs to tenant `acme`: its keys stand below a prefix nobody else can
 * name, the leases it grants are its own, and its limits are checked before its requests take part
 * in anybody's commit. Users without a slash have the engine's plain keys, as without tenants.
 */
import { type Bytes, concatBytes, utf8 } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import type { CallOptions, Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import { leaseHex } from '../../model/lease.ts';
import { prefixRange } from '../../model/range.ts';
import type { LeaseId, TxnRequest } from '../../model/transaction.ts';
import { exhausted, Meter, type TenantLimits } from './meter.ts';
import { namespaced, PublicNamespace, TenantNamespace } from './namespace.ts';
import { type Seat, Turns } from './turns.ts';

export class Tenants {
  readonly #engine: Engine;
  readonly #clock: Clock;
  #limits: TenantLimits;
  readonly #public: Engine;
  readonly #turns: Turns;
  /** Of whoever has no tenant: never waits, and may be held up. */
  readonly #publicSeat: Seat;
  readonly #views = new Map<string, { readonly engine: Engine; readonly meter: Meter }>();

  constructor(engine: Engine, clock: Clock, limits: TenantLimits = {}) {
    this.#engine = engine;
    this.#clock = clock;
    this.#limits = limits;
    this.#turns = new Turns(clock);
    this.#publicSeat = this.#turns.seat();
    this.#public = namespaced(engine, new PublicNamespace());
  }

  async close(): Promise<void> {
    this.#turns.close();
    for (const { meter } of this.#views.values()) await meter.close();
  }

  /** For every tenant, from its next request on. */
  limit(limits: TenantLimits): void {
    this.#limits = limits;
    for (const { meter } of this.#views.values()) meter.limit(limits);
  }

  view(tenant: string | undefined): Engine {
    if (tenant === undefined) {
      if (this.#views.size > 0) this.#turns.seen(this.#publicSeat);
      return this.#public;
    }
    const known = this.#views.get(tenant);
    if (known) return known.engine;
    const keys = tenantPrefix(tenant, 'k');
    const [engine, seat] = [this.#engine, this.#turns.seat()];
    const meter = new Meter({ engine, keys, clock: this.#clock, seat }, this.#limits);
    const parts = { engine, tenant, meter, seen: () => this.#turns.seen(seat) };
    const view = tenantView(parts, () => this.#limits);
    this.#views.set(tenant, { engine: view, meter });
    return view;
  }
}

function tenantPrefix(tenant: string, section: 'k' | 'l'): Bytes {
  return concatBytes(Uint8Array.of(0), utf8(`t/${encodeURIComponent(tenant)}/${section}/`));
}

interface Parts {
  readonly engine: Engine;
  readonly tenant: string;
  readonly meter: Meter;
  /** Says that this tenant is there. */
  readonly seen: () => void;
}

function tenantView({ engine, tenant, meter, seen }: Parts, limits: () => TenantLimits): Engine {
  const own = namespaced(engine, new TenantNamespace(tenantPrefix(tenant, 'k')));
  const leases = new LeaseBook(engine, tenantPrefix(tenant, 'l'));
  const { operator: _operator, ...view } = own;
  return {
    ...view,
    range: (request, call) => meter.range(() => own.range(request, call), call?.signal),
    txn: async (request, call) => {
      for (const lease of leasesOf(request)) await leases.require(lease, call);
      return meter.txn(request, () => own.txn(request, call), call?.signal);
    },
    watch: (request, call) => meter.watch(() => own.watch(request, call)),
    grantLease: async (request, call) => {
      await leases.requireRoom(limits().leases, call);
      const grant = await meter.grant(() => own.grantLease(request, call));
      await leases.enter(grant.id, call);
      return grant;
    },
    keepAlive: async (id, call) => {
      seen();
      await leases.require(id, call);
      return own.keepAlive(id, call);
    },
    revokeLease: async (id, call) => {
      await leases.require(id, call);
      return own.revokeLease(id, call);
    },
    leaseInfo: async (id, call) => {
      await leases.require(id, call);
      return own.leaseInfo(id, call);
    },
    compact: () => Promise.reject(notForTenants()),
    liftEra: () => Promise.reject(notForTenants()),
  };
}

function notForTenants(): HoldfastError {
  return new HoldfastError(
    'permission-denied',
    'the history is shared; only an operator may do this',
  );
}

function leasesOf(request: TxnRequest): Set<LeaseId> {
  const leases = new Set<LeaseId>();
  const visit = (txn: TxnRequest): void => {
    for (const operation of [...(txn.success ?? []), ...(txn.failure ?? [])]) {
      if (operation.type === 'txn') visit(operation);
      if (operation.type === 'put' && operation.lease) leases.add(operation.lease);
    }
  };
  visit(request);
  return leases;
}

/**
 * Which leases a tenant granted: a key for each, attached to the lease itself, so that the entry
 * goes when the lease does. To a tenant another's lease does not exist.
 */
class LeaseBook {
  readonly #engine: Engine;
  readonly #prefix: Bytes;

  constructor(engine: Engine, prefix: Bytes) {
    this.#engine = engine;
    this.#prefix = prefix;
  }

  async enter(id: LeaseId, call: CallOptions | undefined): Promise<void> {
    await this.#engine.txn({ success: [{ type: 'put', key: this.#key(id), lease: id }] }, call);
  }

  async require(id: LeaseId, call: CallOptions | undefined): Promise<void> {
    const { kvs } = await this.#engine.range({ key: this.#key(id), keysOnly: true }, call);
    if (kvs.length > 0) return;
    throw new HoldfastError('lease-not-found', `lease ${leaseHex(id)} does not exist`);
  }

  async requireRoom(max: number | undefined, call: CallOptions | undefined): Promise<void> {
    if (max === undefined) return;
    const { count } = await this.#engine.range(
      { ...prefixRange(this.#prefix), countOnly: true },
      call,
    );
    if (count >= max) throw exhausted(`${max} leases`);
  }

  #key(id: LeaseId): Bytes {
    return concatBytes(this.#prefix, utf8(leaseHex(id)));
  }
}
