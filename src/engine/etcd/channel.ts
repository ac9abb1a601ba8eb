/**
 * Calls to a cluster: one member at a time, the next one when it fails.
 *
 * A call that surely was not carried out, or that changes nothing, is tried on the other members
 * within its time. A write that may have been carried out is reported as such and never repeated.
 * A member that does not answer in time is left, so a stalled one costs a bounded wait, once.
 */
import type { Clock } from '../../base/clock.ts';
import { abortError, HoldfastError } from '../../model/errors.ts';
import { HOPS_HEADER, LOOP_MESSAGE } from '../../model/hops.ts';
import type { MessageType, Method } from '../../wire/messages/descriptor.ts';
import { AuthService } from '../../wire/messages/services.ts';
import type { CallEffect } from '../../wire/messages/status.ts';
import {
  type ClientListener,
  GrpcClient,
  type StreamClientCall,
} from '../../wire/net/grpc-client.ts';
import type { EtcdConfig } from './config.ts';

type RequestOf<M extends Method> = M['request'] extends MessageType<infer _T, infer I> ? I : never;
type ResponseOf<M extends Method> = M['response'] extends MessageType<infer T, never> ? T : never;

export interface UnaryOptions {
  readonly effect: CallEffect;
  readonly signal?: AbortSignal | undefined;
  /** Instead of the channel's time for a whole call. */
  readonly timeoutMs?: number | undefined;
}

interface Login {
  readonly atMs: number;
  /** When the token is there, and goes with every call. */
  readonly done: Promise<void>;
}

/** A token this young has not expired. */
const TOKEN_FRESH_MS = 1_000;
const DEFAULT_ATTEMPT_MS = 2_000;
const DEFAULT_CALL_MS = 8_000;
const CONNECT_TIMEOUT_MS = 1_500;
/** Silence on a connection with calls under way, before a ping and after it. */
const KEEPALIVE_MS = 5_000;
const KEEPALIVE_TIMEOUT_MS = 2_000;
/** All members refused: wait a little before asking them again. */
const ROUND_PAUSE_MS = 100;

export class Channel {
  readonly #config: EtcdConfig;
  readonly #clock: Clock;
  readonly #clients: GrpcClient[];
  #current = 0;
  #login: Login | undefined;
  #token: string | undefined;
  readonly #onLeave: ((member: number) => void)[] = [];
  #closed = false;

  constructor(config: EtcdConfig, clock: Clock) {
    this.#config = config;
    this.#clock = clock;
    this.#clients = config.endpoints.map(
      (endpoint) =>
        new GrpcClient({
          ...endpoint,
          ...(config.tls ? { tls: config.tls } : {}),
          clock,
          connectTimeoutMs: CONNECT_TIMEOUT_MS,
          keepaliveMs: KEEPALIVE_MS,
          keepaliveTimeoutMs: KEEPALIVE_TIMEOUT_MS,
          onDisconnect: () => config.onDisconnect?.(),
        }),
    );
    this.#sayMetadata();
    config.hops?.onChange(() => this.#sayMetadata());
  }

  async unary<M extends Method>(
    method: M,
    request: RequestOf<M>,
    options: UnaryOptions,
  ): Promise<ResponseOf<M>> {
    let leftMs = options.timeoutMs ?? this.callTimeoutMs;
    const until = this.#clock.now() + leftMs;
    let authenticated = false;
    for (let attempt = 1; ; attempt++) {
      if (this.#config.user !== undefined) await this.#authenticate();
      const member = this.#current;
      const login = this.#login;
      try {
        return await this.#attempt(this.#clients[member]!, method, request, options, leftMs);
      } catch (error) {
        leftMs = until - this.#clock.now();
        const failure = HoldfastError.from(error);
        if (options.signal?.aborted) throw abortError(options.signal, failure.outcome);
        if (tokenEnded(failure) && this.#config.user !== undefined && !authenticated) {
          authenticated = true;
          this.#forget(login);
          continue;
        }
        // It says so at once, and the next call asks one that may know the way.
        if (failure.message === LOOP_MESSAGE) this.leave(member);
        if (!isMemberFault(failure) || this.#closed || this.#config.failFast) throw failure;
        this.leave(member);
        const again = failure.outcome === 'rejected' || options.effect === 'read';
        if (!again || leftMs <= 0) throw failure;
        if (attempt % this.#clients.length === 0) {
          await this.#pause(options.signal);
          leftMs = until - this.#clock.now();
        }
      }
    }
  }

  /** A stream on the member that is in use now; whoever opens it opens it anew when it ends. */
  async stream<M extends Method>(
    method: M,
    listener?: ClientListener<ResponseOf<M>>,
  ): Promise<{
    call: StreamClientCall<RequestOf<M> & object, ResponseOf<M> & object>;
    member: number;
  }> {
    await this.#authenticate();
    const member = this.#current;
    const call = this.#clients[member]!.stream(
      method,
      listener ? { listener: listener as never } : {},
    );
    return {
      call: call as StreamClientCall<RequestOf<M> & object, ResponseOf<M> & object>,
      member,
    };
  }

  /** Goes on with the next member, unless somebody did already. */
  leave(member: number): void {
    if (member !== this.#current || this.#clients.length === 1) return;
    this.#current = (member + 1) % this.#clients.length;
    for (const listener of this.#onLeave) listener(member);
  }

  /** Whoever has a stream on a member that is left need not wait until its connection breaks. */
  onLeave(listener: (member: number) => void): void {
    this.#onLeave.push(listener);
  }

  get callTimeoutMs(): number {
    return this.#config.callTimeoutMs ?? DEFAULT_CALL_MS;
  }

  get attemptMs(): number {
    return this.#config.attemptMs ?? DEFAULT_ATTEMPT_MS;
  }

  close(): void {
    this.#closed = true;
    for (const client of this.#clients) client.destroy();
  }

  #attempt<M extends Method>(
    client: GrpcClient,
    method: M,
    request: RequestOf<M>,
    options: UnaryOptions,
    leftMs: number,
  ): Promise<ResponseOf<M>> {
    // With one member there is nobody to go to: let it have all the time there is.
    const patience = this.#clients.length === 1 ? Number.POSITIVE_INFINITY : this.attemptMs;
    const deadlineMs = Math.max(1, Math.min(patience, leftMs));
    const { effect, signal } = options;
    const metadata = this.#config.tracer?.fields();
    // Without metadata of its own a call's headers are those of the last one.
    if (!metadata?.length) return client.unary(method, request, { effect, signal, deadlineMs });
    return client.unary(method, request, { effect, signal, deadlineMs, metadata });
  }

  /**
   * A stream was refused, and etcd does not say whether the token was to blame. True: there will be
   * a new one, so it may be tried again.
   */
  tokenMayHaveEnded(): boolean {
    const login = this.#login;
    if (login === undefined || this.#clock.now() - login.atMs < TOKEN_FRESH_MS) return false;
    this.#forget(login);
    return true;
  }

  #authenticate(): Promise<void> {
    if (this.#config.user === undefined) return NOTHING;
    if (this.#login === undefined) {
      const login: Login = { atMs: this.#clock.now(), done: this.#logIn() };
      this.#login = login;
      login.done.catch(() => this.#forget(login));
    }
    return this.#login.done;
  }

  /** Unless somebody has done so already. A dead token must not be sent, not even to log in. */
  #forget(login: Login | undefined): void {
    if (login !== this.#login) return;
    this.#login = undefined;
    this.#token = undefined;
    this.#sayMetadata();
  }

  /** What goes with every call: one object, which costs nothing to send again. */
  #sayMetadata(): void {
    const { hops } = this.#config;
    const metadata: (readonly [string, string])[] = [LEADER_REQUIRED];
    if (hops) metadata.push([HOPS_HEADER, hops.value]);
    if (this.#token !== undefined) metadata.push(['token', this.#token]);
    for (const client of this.#clients) client.setMetadata(metadata);
  }

  async #logIn(): Promise<void> {
    const { user: name = '', password = '' } = this.#config;
    for (let tried = 0; ; tried++) {
      const member = this.#current;
      try {
        const { token } = await this.#clients[member]!.unary(
          AuthService.Authenticate,
          { name, password },
          { effect: 'read', deadlineMs: this.attemptMs },
        );
        this.#token = token;
        this.#sayMetadata();
        return;
      } catch (error) {
        // A server that asks nobody who he is is none the worse.
        if (HoldfastError.from(error).message === AUTH_OFF) return;
        if (!isMemberFault(HoldfastError.from(error)) || tried >= this.#clients.length) throw error;
        this.leave(member);
      }
    }
  }

  async #pause(signal: AbortSignal | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#clock.wakeAt(this.#clock.now() + ROUND_PAUSE_MS, resolve);
      signal?.addEventListener(
        'abort',
        () => {
          cancel();
          resolve();
        },
        { once: true },
      );
    });
    if (signal?.aborted) throw abortError(signal, 'rejected');
  }
}

const NOTHING = Promise.resolve();
const AUTH_OFF = 'etcdserver: authentication is not enabled';
/** A member cut off from its leader says so at once instead of keeping us waiting. */
const LEADER_REQUIRED: readonly [string, string] = ['hasleader', 'true'];

/** The member, not the request, is what went wrong. */
function isMemberFault(error: HoldfastError): boolean {
  return error.code === 'unavailable' || error.code === 'deadline-exceeded';
}

function tokenEnded(error: HoldfastError): boolean {
  return error.code === 'unauthenticated' && /auth token|auth store is old/.test(error.message);
}
