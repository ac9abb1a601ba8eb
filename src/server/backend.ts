/** What all services share: the engine, the gate before it, and who this server says it is. */

import type { Bytes } from '../base/bytes.ts';
import type { Clock } from '../base/clock.ts';
import type { CallOptions, Engine } from '../engine/contract.ts';
import type { AuditAct } from '../model/audit.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Header, LeaseId, TxnRequest, TxnResult } from '../model/transaction.ts';
import type { LockFigures } from '../recipes/figures.ts';
import { headerToWire, type Identity as WireIdentity } from '../wire/messages/convert.ts';
import { demandsOf, Gate, type Identity } from './access/gate.ts';
import { LoginThrottle } from './access/login-throttle.ts';
import { AccessStore } from './access/store.ts';
import type { Tokens } from './access/tokens.ts';
import { NO_ACCESS_CONTROL } from './access/users.ts';
import { AuditDesk } from './audit/desk.ts';
import { AuditLog } from './audit/log.ts';
import { breakingOf, deletesIn, mayBreak, type Taking, takingOf } from './audit/takings.ts';
import { Departure } from './departure.ts';
import { SealKeys } from './sealing/keys.ts';
import type { TenantLimits } from './tenants/meter.ts';
import { Tenants } from './tenants/tenants.ts';

/** Only a server like this one refuses the key; it has users and roles of its own. */
function refuseOwnKind(error: unknown): never {
  if (!HoldfastError.is(error, 'invalid-argument')) throw error;
  throw new HoldfastError(
    'invalid-argument',
    'the engine is a Holdfast server itself, and perhaps this one: name the engine of that one, or connect to it directly',
    { cause: error },
  );
}

/** Where users and roles are kept: below a zero byte, out of every client's reach. */
const ACCESS_KEY: Bytes = Uint8Array.of(0, 0x61, 0x75, 0x74, 0x68);

export interface BackendOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly name: string;
  /** Where clients reach this server; member lists tell it. */
  readonly clientUrls: () => readonly string[];
  readonly tenantLimits?: TenantLimits | undefined;
  /** Nobody is asked who he is. */
  readonly trusted?: boolean;
  readonly passwordLengthMin?: number | undefined;
  /** A key signs sealed tokens for so long. @default 30 days */
  readonly sealRotateMs?: number | undefined;
  /** Counts what is asked of the Lock and Election services. */
  readonly locks?: LockFigures | undefined;
  /** Told that another key signs them. */
  readonly onSealKey?: ((keyId: string) => void) | undefined;
  /** Keep the audit log. @default false */
  readonly audit?: boolean | undefined;
  /** Told what could not be written to it. */
  readonly onAuditFailure?: ((message: string, reason: string) => void) | undefined;
}

const SEAL_ROTATE_MS = 30 * 86_400_000;

/** One request on its way: who asks, until when, and over which connection. */
export interface Call {
  readonly identity: Identity;
  /** For what waits; a write under way is not called back. */
  readonly signal: AbortSignal;
  readonly connection: Connection;
  /** Where it comes from, as far as the system knows; empty for a Unix socket. */
  readonly address: string;
  /** What came with it beside the request: metadata of gRPC, fields of HTTP, by lower-case name. */
  header(name: string): string | undefined;
  /** Common name of the certificate that was verified; empty without one. */
  readonly certificate?: string;
}

/** What a client's connection holds while it lasts. */
export interface Connection {
  /** Runs when the connection ends; at once if it has. */
  onEnd(undo: () => void): void;
}

export class Backend {
  readonly options: BackendOptions;
  readonly access: AccessStore;
  readonly gate: Gate;
  readonly tenants: Tenants;
  readonly logins: LoginThrottle;
  readonly sealKeys: SealKeys;
  readonly audit: AuditDesk;
  readonly wire: WireIdentity;
  /** For calls that wait for what others do. */
  readonly departure: Departure = new Departure();
  /** The newest header that went out; its era is that of everything said now. */
  lastHeader: Header = { revision: 0, era: 0 };
  readonly #accessListeners = new Set<() => void>();

  static async open(options: BackendOptions): Promise<Backend> {
    const access = await AccessStore.open(options.engine, ACCESS_KEY).catch(refuseOwnKind);
    const status = await options.engine.status();
    const { clusterId, memberId, term } = status;
    return new Backend(options, access, { clusterId, memberId, term: Number(term) });
  }

  private constructor(options: BackendOptions, access: AccessStore, wire: WireIdentity) {
    this.options = options;
    this.access = access;
    this.wire = wire;
    this.gate = new Gate(() => (options.trusted ? NO_ACCESS_CONTROL : access.state));
    access.onChange(async () => {
      for (const listener of this.#accessListeners) listener();
    });
    this.logins = new LoginThrottle(options.clock);
    this.tenants = new Tenants(options.engine, options.clock, options.tenantLimits);
    const { engine, clock } = options;
    const log = options.audit ? auditLog(options) : undefined;
    this.audit = new AuditDesk({ log, gate: this.gate, clock });
    this.sealKeys = new SealKeys({
      engine,
      clock,
      along: log?.along({ act: 'seal-keys.rotate', reason: 'by itself' }),
      rotateEveryMs: options.sealRotateMs ?? SEAL_ROTATE_MS,
      onRotate: options.onSealKey ?? (() => {}),
    });
  }

  get engine(): Engine {
    return this.options.engine;
  }

  /** The engine as this caller may see it. Whoever uses it has asked the gate before. */
  view(call: Call): Engine {
    return this.tenants.view(this.gate.tenantOf(call.identity));
  }

  /** What a tenant asks for may wait for its turn, and not for longer than the caller does. */
  patience(call: Call): CallOptions | undefined {
    return this.gate.tenantOf(call.identity) === undefined ? undefined : { signal: call.signal };
  }

  /** Called at once when users or roles change, before the change is answered. */
  onAccessChange(listener: () => void): () => void {
    this.#accessListeners.add(listener);
    return () => this.#accessListeners.delete(listener);
  }

  header(header: Header): ReturnType<typeof headerToWire> {
    if (header.revision > this.lastHeader.revision) this.lastHeader = header;
    return headerToWire(header, this.wire);
  }

  /** Judges a transaction with its original arguments, then runs it. */
  txn(request: TxnRequest, call: Call): Promise<TxnResult> {
    const plain = this.gate.open && !mayBreak(request);
    return plain ? this.view(call).txn(request) : this.#judgedTxn(request, call);
  }

  async #judgedTxn(request: TxnRequest, call: Call): Promise<TxnResult> {
    const { requirements, leases } = demandsOf(request);
    this.gate.keys(call.identity, requirements);
    for (const lease of leases) await this.leaseKeys(lease, 'write', call);
    if (this.audit.log && (mayBreak(request) || this.gate.operator(call.identity))) {
      return this.#recordedTxn(request, call);
    }
    return this.view(call).txn(request, this.patience(call));
  }

  /** What takes something from a holder is told, with its reason where one is given. */
  async #recordedTxn(request: TxnRequest, call: Call): Promise<TxnResult> {
    const view = this.view(call);
    const breaking = mayBreak(request) ? breakingOf(request) : undefined;
    if (!this.gate.operator(call.identity)) {
      const result = await view.txn(request);
      if (breaking && result.succeeded) this.audit.released(call, breaking);
      return result;
    }
    const isOwn = (lease: LeaseId): boolean => this.audit.isOwn(call, lease);
    const taking = breaking ?? (await takingOf(request, view, isOwn));
    if (!taking) return view.txn(request);
    return this.taken(call, taking, () => view.txn(request), deletesIn);
  }

  /** An operator's hand on what another holds. */
  taken<T>(
    call: Call,
    taking: Taking,
    work: () => Promise<T>,
    took: (result: T) => boolean = () => true,
  ): Promise<T> {
    const ended = (result: T): Partial<AuditAct> =>
      took(result) ? {} : { outcome: 'refused', reason: 'it deleted nothing' };
    return this.audit.around(call, taking, work, { remedy: true, ended });
  }

  /** The keys of a lease are as much touched by what happens to it as if they had been named. */
  async leaseKeys(id: LeaseId, right: 'read' | 'write', call: Call): Promise<void> {
    if (this.gate.open) return;
    const view = this.view(call);
    try {
      const { keys = [] } = await view.leaseInfo(id, { keys: true });
      this.gate.leaseKeys(call.identity, right, keys);
    } catch (error) {
      // What becomes of a lease that does not exist is for the request itself to say.
      if (!HoldfastError.is(error, 'lease-not-found')) throw error;
    }
  }

  /** A log that is there says that from now on it is not kept. */
  async leaveAudit(): Promise<void> {
    const log = auditLog(this.options);
    try {
      const { head } = await log.head();
      if (head.seq > 0) await log.note({ act: 'audit.off', reason: 'the server was started so' });
    } catch (error) {
      // Also the way to go on when it is damaged.
      const { message } = HoldfastError.from(error);
      this.options.onAuditFailure?.('the audit log does not say that it is not kept', message);
    }
  }

  /** For requests that concern the whole server: root, and of no tenant. */
  admin(call: Call): void {
    this.gate.admin(call.identity);
  }
}

function auditLog({ engine, clock, name, onAuditFailure = () => {} }: BackendOptions): AuditLog {
  return new AuditLog({ engine, clock, server: name, onFailure: onAuditFailure });
}
