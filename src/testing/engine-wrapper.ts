/**
 * An engine that passes everything on. Faults and planted bugs are written as what they change.
 */
import type { CallOptions, Capabilities, Engine, Operator, Status } from '../engine/contract.ts';
import type { LeaseGrant, LeaseGrantRequest, LeaseInfo, LeaseRenewal } from '../model/lease.ts';
import type {
  Header,
  LeaseId,
  RangeRequest,
  RangeResult,
  Revision,
  TxnRequest,
  TxnResult,
} from '../model/transaction.ts';
import type { Watch, WatchRequest } from '../model/watch.ts';

export class EngineWrapper implements Engine {
  protected readonly inner: Engine;

  constructor(inner: Engine) {
    this.inner = inner;
  }

  get capabilities(): Capabilities {
    return this.inner.capabilities;
  }

  // What the engine behind lacks stays absent, so that users who ask find out.
  get operator(): Operator {
    return this.inner.operator as Operator;
  }

  range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    return this.inner.range(request, options);
  }

  txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    return this.inner.txn(request, options);
  }

  watch(request: WatchRequest, options?: CallOptions): Watch {
    return this.inner.watch(request, options);
  }

  grantLease(request: LeaseGrantRequest, options?: CallOptions): Promise<LeaseGrant> {
    return this.inner.grantLease(request, options);
  }

  keepAlive(id: LeaseId, options?: CallOptions): Promise<LeaseRenewal> {
    return this.inner.keepAlive(id, options);
  }

  revokeLease(id: LeaseId, options?: CallOptions): Promise<Header> {
    return this.inner.revokeLease(id, options);
  }

  leaseInfo(id: LeaseId, options?: CallOptions & { readonly keys?: boolean }): Promise<LeaseInfo> {
    return this.inner.leaseInfo(id, options);
  }

  compact(
    revision: Revision,
    options?: CallOptions & { readonly physical?: boolean },
  ): Promise<Header> {
    return this.inner.compact(revision, options);
  }

  liftEra(era: number, options?: CallOptions): Promise<Header> {
    return this.inner.liftEra(era, options);
  }

  status(options?: CallOptions): Promise<Status> {
    return this.inner.status(options);
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
