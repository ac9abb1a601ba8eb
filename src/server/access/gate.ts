/**
 * The one door. Every request of every caller is judged here, with its arguments as they came:
 * ranges with their sentinels, both branches of every nested transaction, former values asked for,
 * leases attached. Nothing is evaluated before it has passed, and there is no other way in.
 */
import type { Bytes } from '../../base/bytes.ts';
import { type Interval, interval, isEmptyInterval, type KeyRange } from '../../model/range.ts';
import type { LeaseId, Operation, TxnRequest } from '../../model/transaction.ts';
import { covers, type Right } from './permission.ts';
import { refusal } from './refusal.ts';
import { type AccessState, permissionsOf, ROOT, tenantOf, type User } from './users.ts';

/** Who asks, as far as it has proved itself. `undefined` user: nobody in particular. */
export interface Identity {
  readonly user: string | undefined;
  /** Revision of users and roles the proof was made under; absent for certificates. */
  readonly revision?: number | undefined;
}

export interface Requirement {
  readonly right: Right;
  readonly range: KeyRange;
}

export interface Demands {
  readonly requirements: readonly Requirement[];
  /** Leases a put attaches to: every key they carry must be writable too. */
  readonly leases: readonly LeaseId[];
}

/** All that a transaction could touch, whichever branch runs. */
export function demandsOf(request: TxnRequest): Demands {
  const requirements: Requirement[] = [];
  const leases = new Set<LeaseId>();
  const visit = (txn: TxnRequest): void => {
    for (const compare of txn.compare ?? []) requirements.push({ right: 'read', range: compare });
    for (const operation of [...(txn.success ?? []), ...(txn.failure ?? [])]) {
      if (operation.type === 'txn') visit(operation);
      else demand(operation, requirements, leases);
    }
  };
  visit(request);
  return { requirements, leases: [...leases] };
}

function demand(
  operation: Exclude<Operation, { type: 'txn' }>,
  requirements: Requirement[],
  leases: Set<LeaseId>,
): void {
  if (operation.type === 'range') {
    requirements.push({ right: 'read', range: operation });
    return;
  }
  const range: KeyRange = operation.type === 'put' ? { key: operation.key } : operation;
  requirements.push({ right: 'write', range });
  if (operation.prevKv) requirements.push({ right: 'read', range });
  if (operation.type === 'put' && operation.lease) leases.add(operation.lease);
}

export class Gate {
  readonly #state: () => AccessState;

  constructor(state: () => AccessState) {
    this.#state = state;
  }

  /** Whether anything is asked of anybody. */
  get open(): boolean {
    return !this.#state().enabled;
  }

  /** The user behind an identity; refuses nobody, outdated proofs and users that are gone. */
  authenticated(identity: Identity): User | undefined {
    const state = this.#state();
    if (!state.enabled) return undefined;
    if (identity.user === undefined) throw refusal('user name is empty');
    if (identity.revision !== undefined && identity.revision < state.revision) {
      throw refusal('revision of auth store is old');
    }
    const user = state.users.get(identity.user);
    if (!user) throw refusal('invalid auth token');
    return user;
  }

  keys(identity: Identity, requirements: readonly Requirement[]): void {
    const user = this.authenticated(identity);
    if (!user || isRoot(user)) return;
    const permissions = permissionsOf(this.#state(), user);
    for (const { right, range } of requirements) {
      if (!covers(permissions, right, asked(range))) throw refusal('permission denied');
    }
  }

  /** Keys that a lease carries, before it is ended, renewed, shown or attached to. */
  leaseKeys(identity: Identity, right: Right, keys: readonly Bytes[]): void {
    this.keys(
      identity,
      keys.map((key) => ({ right, range: { key } })),
    );
  }

  /** What concerns everybody: root, and root of no tenant. */
  admin(identity: Identity): void {
    const user = this.authenticated(identity);
    if (user && !isOperator(user)) throw refusal('permission denied');
  }

  /** Whether the caller may do all that `admin` lets pass; nobody is while nobody is asked. */
  operator(identity: Identity): boolean {
    const { enabled, users } = this.#state();
    const user = enabled && identity.user !== undefined ? users.get(identity.user) : undefined;
    return user !== undefined && isOperator(user);
  }

  /** Users may see themselves, roles may be seen by who has them; root sees all. */
  mayShowUser(identity: Identity, name: string): void {
    const user = this.authenticated(identity);
    if (user && !isOperator(user) && user.name !== name) throw refusal('permission denied');
  }

  mayShowRole(identity: Identity, role: string): void {
    const user = this.authenticated(identity);
    if (user && !isOperator(user) && !user.roles.includes(role)) throw refusal('permission denied');
  }

  /** Whether what was allowed once still is; for watches, when users or roles change. */
  stillMayRead(name: string | undefined, range: KeyRange): boolean {
    const state = this.#state();
    if (!state.enabled) return true;
    const user = name === undefined ? undefined : state.users.get(name);
    if (!user) return false;
    return isRoot(user) || covers(permissionsOf(state, user), 'read', asked(range));
  }

  tenantOf(identity: Identity): string | undefined {
    return this.open || identity.user === undefined ? undefined : tenantOf(identity.user);
  }
}

/** An empty interval reaches no key, but its bounds must lie within what is granted all the same. */
function asked(range: KeyRange): Interval {
  const wanted = interval(range);
  return isEmptyInterval(wanted) ? interval({ key: range.key }) : wanted;
}

/** Root of a tenant may do everything with the tenant's keys, and nothing beside them. */
function isRoot(user: User): boolean {
  return user.roles.includes(ROOT);
}

function isOperator(user: User): boolean {
  return isRoot(user) && tenantOf(user.name) === undefined;
}
