/**
 * An etcd cluster, or a Holdfast server, as an engine.
 *
 * The contract's verbs are etcd's own, so most of this is sending and receiving; what it adds is the
 * era (see `history.ts`), watches that survive their stream, renewals that share one, and failover.
 */

import { abortable } from '../../base/abort.ts';
import { compareBytes, text, utf8 } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import { deferred } from '../../base/deferred.ts';
import { systemClock } from '../../base/system.ts';
import { abortError, HoldfastError } from '../../model/errors.ts';
import {
  LEASE_ID_MAX,
  LEASE_TTL_MS_MAX,
  type LeaseGrant,
  type LeaseGrantRequest,
  type LeaseInfo,
  type LeaseRenewal,
  leaseHex,
} from '../../model/lease.ts';
import type { Sealer } from '../../model/seal.ts';
import { ERA_MAX } from '../../model/token.ts';
import type {
  Compare,
  Header,
  KeyValue,
  LeaseId,
  RangeRequest,
  RangeResult,
  Revision,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Watch, WatchRequest } from '../../model/watch.ts';
import { checkRange, checkTxn } from '../../mvcc/check.ts';
import {
  rangeResultToModel,
  rangeToWire,
  ttlToModel,
  ttlToWire,
  txnResultToModel,
  txnToWire,
} from '../../wire/messages/convert.ts';
import {
  AuthorityService,
  KVService,
  LeaseService,
  MaintenanceService,
  WatchService,
} from '../../wire/messages/services.ts';
import type { CallEffect } from '../../wire/messages/status.ts';
import type {
  CallOptions,
  Capabilities,
  Engine,
  Operator,
  Status,
  TxnOptions,
} from '../contract.ts';
import { type Auditor, auditorOf } from './auditor.ts';
import { bundle, unbundle } from './bundle.ts';
import { Channel } from './channel.ts';
import type { EtcdConfig } from './config.ts';
import type { Footprint } from './footprint.ts';
import { ERA_KEY, History } from './history.ts';
import { Lane, type Travel } from './lane.ts';
import { Renewals } from './renewals.ts';
import { sealerOf } from './sealer.ts';
import { type Survey, survey, tie } from './tied.ts';
import { versionWarning } from './versions.ts';
import { refusedWatch } from './watch.ts';
import { Watches } from './watches.ts';

const REQUEST_BYTES_MAX = 1.5 * 2 ** 20;
const OPERATIONS_MAX = 128;
/** A third of what a server takes: a bundle is there to be quick, and its size is an estimate. */
const BUNDLE_SHARE = 1 / 3;
const WATCH_BYTES_MAX = 8 * 2 ** 20;
/** etcd looks at its late watches ten times a second. */
const COMPACT_REVISION_MS = 500;
/** How often a grant is tried again because somebody lifted the era meanwhile. */
const ERA_ATTEMPTS = 8;

export class EtcdEngine implements Engine {
  readonly capabilities: Capabilities;
  readonly operator?: Operator;
  readonly sealer?: Sealer;
  readonly auditor: Auditor;
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #history: History;
  readonly #watches: Watches;
  readonly #renewals: Renewals;
  /** Absent: every transaction is a request. */
  readonly #lane: Lane | undefined;
  #closed = false;

  static async open(config: EtcdConfig): Promise<EtcdEngine> {
    const clock = config.clock ?? systemClock;
    const channel = new Channel(config, clock);
    try {
      const keepsEra = await speaksHoldfast(channel);
      const engine = new EtcdEngine(config, channel, clock, new History(keepsEra));
      await engine.#readEra();
      if (!keepsEra && config.onWarning) await warn(channel, config.onWarning);
      return engine;
    } catch (error) {
      channel.close();
      throw error;
    }
  }

  private constructor(config: EtcdConfig, channel: Channel, clock: Clock, history: History) {
    this.#channel = channel;
    this.#clock = clock;
    this.#history = history;
    this.auditor = auditorOf(channel);
    if (history.keepsEra) this.sealer = sealerOf(channel);
    const headerOf = history.header.bind(history);
    const bytesMax = config.watchBytesMax ?? WATCH_BYTES_MAX;
    this.#watches = new Watches({ channel, clock, bytesMax, headerOf });
    this.#renewals = new Renewals(channel, clock, headerOf);
    this.capabilities = {
      name: 'etcd',
      durable: true,
      shared: true,
      // A cluster may raise a lease further: two seconds with its default election time.
      leaseTtlMsMin: history.keepsEra ? 1_000 : 2_000,
      leaseTtlMsStep: 1_000,
      keyBytesMax: config.requestBytesMax ?? REQUEST_BYTES_MAX,
      requestBytesMax: config.requestBytesMax ?? REQUEST_BYTES_MAX,
      // A grant may be wrapped in a transaction that holds it to the era; that costs one level.
      operationsMax: (config.operationsMax ?? OPERATIONS_MAX) - (history.keepsEra ? 0 : 1),
    };
    if (!history.keepsEra && (config.shareRevisions ?? !hasRights(config))) {
      this.#lane = new Lane({
        clock,
        operationsMax: config.operationsMax ?? OPERATIONS_MAX,
        bytesMax: this.capabilities.requestBytesMax * BUNDLE_SHARE,
        callTimeoutMs: channel.callTimeoutMs,
        sendOne: async (request, travel) => this.#sendOne(request, travel),
        sendAll: (requests, footprints, travel) => this.#sendAll(requests, footprints, travel),
      });
    }
  }

  async range(request: RangeRequest, { signal }: CallOptions = {}): Promise<RangeResult> {
    const moment = this.#enter(signal);
    checkRange(request);
    const response = await this.#channel
      .unary(KVService.Range, rangeToWire(request), { effect: 'read', signal })
      .catch((error: unknown) => this.#told(error));
    const header = request.serializable
      ? this.#history.header(response.header)
      : this.#history.confirm(response.header, moment);
    return { ...rangeResultToModel(response), header };
  }

  /** Not `async`, here and below: on the way of every write each promise counts. */
  txn(request: TxnRequest, { signal, shareRevision = false }: TxnOptions = {}): Promise<TxnResult> {
    try {
      this.#enter(signal);
      checkTxn(request, this.capabilities);
      const found = survey(request);
      if (this.#lane && shareRevision && found.writes) return this.#lane.submit(request, signal);
      return this.#sendOne(request, { signal }, found);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  watch(request: WatchRequest, { signal }: CallOptions = {}): Watch {
    const refusal = this.#refusal(signal);
    if (refusal) return refusedWatch(refusal);
    const watch = this.#watches.open(request);
    if (signal) {
      const onAbort = (): void => watch.fail(abortError(signal, 'rejected'));
      signal.addEventListener('abort', onAbort, { once: true });
      watch.onEnd(() => signal.removeEventListener('abort', onAbort));
    }
    return watch;
  }

  async grantLease(request: LeaseGrantRequest, { signal }: CallOptions = {}): Promise<LeaseGrant> {
    const moment = this.#enter(signal);
    const { id = 0n, ttlMs } = request;
    if (!Number.isFinite(ttlMs)) {
      throw new HoldfastError('invalid-argument', `a lease cannot live ${ttlMs} ms`);
    }
    if (id < 0n || id > LEASE_ID_MAX) {
      throw new HoldfastError(
        'invalid-argument',
        `${id} is not a lease id: 1 to 2^63-1, or 0 for any`,
      );
    }
    if (ttlMs > LEASE_TTL_MS_MAX) {
      throw new HoldfastError('lease-ttl-too-large', 'the lease would live too long');
    }
    const wanted = Math.max(ttlToWire(ttlMs), ttlToWire(this.capabilities.leaseTtlMsMin));
    const { header, ID, TTL } = await this.#channel.unary(
      LeaseService.LeaseGrant,
      { ID: id, TTL: wanted },
      { effect: 'write', signal },
    );
    return { header: this.#history.confirm(header, moment), id: ID, ttlMs: ttlToModel(TTL) };
  }

  async keepAlive(id: LeaseId, { signal }: CallOptions = {}): Promise<LeaseRenewal> {
    this.#enter(signal);
    try {
      return await abortable(this.#renewals.renew(id), signal);
    } catch (error) {
      if (signal?.aborted) throw abortError(signal, 'unknown');
      throw error;
    }
  }

  async revokeLease(id: LeaseId, { signal }: CallOptions = {}): Promise<Header> {
    const moment = this.#enter(signal);
    const { header } = await this.#channel.unary(
      LeaseService.LeaseRevoke,
      { ID: id },
      { effect: 'write', signal },
    );
    return this.#history.confirm(header, moment);
  }

  async leaseInfo(
    id: LeaseId,
    { signal, keys = false }: CallOptions & { readonly keys?: boolean } = {},
  ): Promise<LeaseInfo> {
    this.#enter(signal);
    const found = await this.#channel.unary(
      LeaseService.LeaseTimeToLive,
      { ID: id, keys },
      { effect: 'read', signal },
    );
    if (found.TTL < 0) {
      throw new HoldfastError('lease-not-found', `lease ${leaseHex(id)} does not exist`);
    }
    return {
      header: this.#history.header(found.header),
      id,
      grantedTtlMs: ttlToModel(found.grantedTTL),
      remainingTtlMs: ttlToModel(found.TTL),
      ...(keys ? { keys: found.keys.sort(compareBytes) } : {}),
    };
  }

  async compact(
    revision: Revision,
    { signal, physical = false }: CallOptions & { readonly physical?: boolean } = {},
  ): Promise<Header> {
    const moment = this.#enter(signal);
    const { header } = await this.#channel
      .unary(KVService.Compact, { revision, physical }, { effect: 'write', signal })
      .catch((error: unknown) => this.#told(error));
    return this.#history.confirm(header, moment);
  }

  async liftEra(era: number, { signal }: CallOptions = {}): Promise<Header> {
    if (this.#closed) throw closedError();
    if (!Number.isInteger(era) || era < 0 || era > ERA_MAX) {
      throw new HoldfastError('invalid-argument', `era ${era} is not in 0..${ERA_MAX}`);
    }
    if (this.#history.keepsEra) {
      const { header } = await this.#channel.unary(
        AuthorityService.LiftEra,
        { era },
        { effect: 'write', signal },
      );
      this.#history.accept(header);
      return this.#history.header(header);
    }
    return this.#liftEraKey(era, signal);
  }

  async status({ signal }: CallOptions = {}): Promise<Status> {
    const moment = this.#enter(signal);
    const effect = { effect: 'read' as const, signal };
    // The members' own status may lag; a linearizable read says where the history stands.
    const read = await this.#channel.unary(
      KVService.Range,
      { key: ERA_KEY, countOnly: true },
      effect,
    );
    const header = this.#history.confirm(read.header, moment);
    const found = await this.#channel.unary(MaintenanceService.Status, {}, effect);
    const { alarms } = await this.#channel.unary(MaintenanceService.Alarm, {}, effect);
    return {
      header,
      clusterId: found.header?.clusterId ?? 0n,
      memberId: found.header?.memberId ?? 0n,
      compactRevision: await this.#compactRevision(),
      leader: found.leader,
      term: BigInt(Math.floor(found.raftTerm)),
      version: found.version,
      sizeBytes: found.dbSize,
      sizeInUseBytes: found.dbSizeInUse,
      alarms: [...new Set(alarms.map(({ alarm }) => ALARMS[alarm] ?? 'corrupt'))],
    };
  }

  /** The server's snapshot as it comes, without the digest behind it; `restore` reads ours. */
  async *snapshot(): AsyncGenerator<Uint8Array> {
    const { call } = await this.#channel.stream(MaintenanceService.Snapshot);
    call.send({});
    call.halfClose();
    for await (const { blob, remainingBytes } of call.responses())
      if (remainingBytes > 0) yield blob;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#lane?.close(closedError());
    this.#watches.close();
    this.#renewals.close();
    this.#channel.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #enter(signal: AbortSignal | undefined): ReturnType<History['begin']> {
    const refusal = this.#refusal(signal);
    if (refusal) throw refusal;
    return this.#history.begin();
  }

  #refusal(signal: AbortSignal | undefined): HoldfastError | undefined {
    if (this.#closed) return closedError();
    if (signal?.aborted) return abortError(signal, 'rejected');
    return this.#history.regressed;
  }

  /** Throws what is refused before it is sent. */
  #sendOne(
    request: TxnRequest,
    travel: Partial<Travel>,
    { attachesLease, writes, parts }: Survey = survey(request),
  ): Promise<TxnResult> {
    const effect = writes ? 'write' : 'read';
    if (this.#history.keepsEra || !attachesLease) return this.#txn(request, effect, travel);
    const { operationsMax } = this.capabilities;
    return this.#inEra(async (era) => {
      const { request: sent, untie } = tie(request, era, parts, operationsMax);
      return untie(await this.#txn(sent, effect, travel));
    });
  }

  async #sendAll(
    requests: readonly TxnRequest[],
    footprints: readonly Footprint[],
    travel: Travel,
  ): Promise<readonly TxnResult[]> {
    const put = footprints.find((one) => one.put !== undefined)?.put;
    const attachesLease = footprints.some((one) => one.attachesLease);
    return this.#inEra(async (era) => {
      const binding = { era: attachesLease ? era : undefined, put };
      return unbundle(await this.#txn(bundle(requests, binding), 'write', travel), binding);
    });
  }

  /** Sends what holds only in the present era, again if somebody lifted it meanwhile. */
  async #inEra<T extends object>(
    send: (era: Compare) => Promise<T | { readonly lifted: KeyValue | undefined }>,
  ): Promise<T> {
    for (let attempt = 0; attempt < ERA_ATTEMPTS; attempt++) {
      const answer = await send(this.#history.eraUnchanged());
      if (!('lifted' in answer)) return answer;
      this.#history.adoptEra(answer.lifted);
    }
    throw new HoldfastError('conflict', 'the era keeps being lifted; try again');
  }

  #txn(request: TxnRequest, effect: CallEffect, travel: Partial<Travel>): Promise<TxnResult> {
    const { signal, timeoutMs } = travel;
    const moment = this.#enter(signal);
    return this.#channel
      .unary(KVService.Txn, txnToWire(request), { effect, signal, timeoutMs })
      .then((response) =>
        txnResultToModel(response, this.#history.confirm(response.header, moment)),
      );
  }

  async #readEra(): Promise<void> {
    if (this.#history.keepsEra) return;
    const { kvs } = await this.range({ key: ERA_KEY });
    this.#history.adoptEra(kvs[0]);
  }

  async #liftEraKey(era: number, signal: AbortSignal | undefined): Promise<Header> {
    for (let attempt = 0; attempt < ERA_ATTEMPTS; attempt++) {
      const found = await this.#channel.unary(
        KVService.Range,
        { key: ERA_KEY },
        { effect: 'read', signal },
      );
      this.#history.accept(found.header);
      this.#history.adoptEra(found.kvs[0]);
      const stored = found.kvs[0] ? Number(text(found.kvs[0].value)) : 0;
      if (stored >= era) return this.#history.header(found.header);
      const result = await this.#txn(
        {
          compare: [this.#history.eraUnchanged()],
          success: [{ type: 'put', key: ERA_KEY, value: utf8(String(era)) }],
        },
        'write',
        { signal },
      );
      await this.#readEra();
      if (result.succeeded) return { revision: result.header.revision, era: this.#history.era };
    }
    throw new HoldfastError('conflict', 'others keep lifting the era; try again');
  }

  /** A refusal for compaction says from where on one can read; etcd's does not. */
  async #told(error: unknown): Promise<never> {
    if (!HoldfastError.is(error, 'compacted')) throw error;
    const compactRevision = await this.#compactRevision();
    const message = `the revision has been compacted; the oldest readable is ${compactRevision}`;
    throw new HoldfastError('compacted', message, { compactRevision, cause: error });
  }

  /**
   * etcd tells its compact revision only to a watch that would start before it, a moment after the
   * watch was created; without a word in that time nothing is compacted.
   */
  async #compactRevision(): Promise<Revision> {
    const found = deferred<Revision>();
    const { call } = await this.#channel.stream(WatchService.Watch, {
      onMessage: ({ canceled, compactRevision }) => {
        if (canceled) found.resolve(compactRevision);
      },
      onEnd: (error) => found.reject(error ?? closedError()),
    });
    const clock = this.#clock;
    const cancel = clock.wakeAt(clock.now() + COMPACT_REVISION_MS, () => found.resolve(0));
    try {
      call.send({ createRequest: { key: ERA_KEY, startRevision: 1 } });
      return await found.promise;
    } finally {
      cancel();
      call.cancel();
    }
  }
}

/** Somebody the server knows by name, and may refuse. */
function hasRights({ user, tls }: EtcdConfig): boolean {
  return user !== undefined || tls?.cert !== undefined || tls?.pfx !== undefined;
}

const ALARMS: readonly (Status['alarms'][number] | undefined)[] = [
  undefined,
  'no-space',
  'corrupt',
];

/** A Holdfast server knows a service that no etcd has. */
async function speaksHoldfast(channel: Channel): Promise<boolean> {
  try {
    await channel.unary(AuthorityService.LiftEra, { era: 0 }, { effect: 'read' });
    return true;
  } catch (error) {
    if (HoldfastError.is(error, 'unsupported')) return false;
    throw error;
  }
}

async function warn(channel: Channel, tell: (message: string) => void): Promise<void> {
  const { version } = await channel.unary(MaintenanceService.Status, {}, { effect: 'read' });
  const warning = versionWarning(version);
  if (warning) tell(warning);
}

function closedError(): HoldfastError {
  return new HoldfastError('closed', 'the engine has been closed');
}
