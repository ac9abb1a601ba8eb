/**
 * Renewals of all leases on one stream: asked together, answered in any order.
 *
 * A renewal that is not answered in time is given up together with the stream, since the member on
 * its other side may have stalled; the holder's deadline does the rest.
 */
import type { Clock } from '../../base/clock.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import { type LeaseRenewal, leaseHex } from '../../model/lease.ts';
import type { Header, LeaseId } from '../../model/transaction.ts';
import { ttlToModel } from '../../wire/messages/convert.ts';
import type {
  LeaseKeepAliveRequestInit,
  LeaseKeepAliveResponse,
  ResponseHeader,
} from '../../wire/messages/gen/rpc.ts';
import { LeaseService } from '../../wire/messages/services.ts';
import type { StreamClientCall } from '../../wire/net/grpc-client.ts';
import type { Channel } from './channel.ts';

interface Open {
  readonly call: Promise<{ call: StreamClientCall<LeaseKeepAliveRequestInit>; member: number }>;
  readonly waiting: Map<LeaseId, Deferred<LeaseRenewal>[]>;
}

export class Renewals {
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #headerOf: (header: ResponseHeader | undefined) => Header;
  #open: Open | undefined;

  constructor(
    channel: Channel,
    clock: Clock,
    headerOf: (header: ResponseHeader | undefined) => Header,
  ) {
    this.#channel = channel;
    this.#clock = clock;
    this.#headerOf = headerOf;
  }

  async renew(id: LeaseId): Promise<LeaseRenewal> {
    const open = this.#stream();
    const answer = deferred<LeaseRenewal>();
    answer.promise.catch(() => {});
    const same = open.waiting.get(id);
    if (same) same.push(answer);
    else open.waiting.set(id, [answer]);
    const cancel = this.#clock.wakeAt(this.#clock.now() + this.#channel.attemptMs, () =>
      this.#abandon(
        open,
        new HoldfastError('unavailable', 'a renewal was not answered in time', {
          outcome: 'unknown',
        }),
      ),
    );
    try {
      const { call } = await open.call;
      call.send({ ID: id });
      return await answer.promise;
    } catch (error) {
      this.#abandon(open, HoldfastError.from(error));
      throw error;
    } finally {
      cancel();
    }
  }

  close(): void {
    if (this.#open)
      this.#abandon(this.#open, new HoldfastError('closed', 'the engine has been closed'));
  }

  #stream(): Open {
    if (this.#open) return this.#open;
    const open: Open = {
      waiting: new Map(),
      call: this.#channel.stream(LeaseService.LeaseKeepAlive, {
        onMessage: (response) => this.#answered(open, response),
        onEnd: (error) =>
          this.#abandon(
            open,
            error ??
              new HoldfastError('unavailable', 'the server ended the renewals', {
                outcome: 'unknown',
              }),
          ),
      }),
    };
    open.call.catch(() => {});
    this.#open = open;
    return open;
  }

  #answered(open: Open, { header, ID, TTL }: LeaseKeepAliveResponse): void {
    const [first, ...rest] = open.waiting.get(ID) ?? [];
    if (!first) return;
    if (rest.length > 0) open.waiting.set(ID, rest);
    else open.waiting.delete(ID);
    if (TTL > 0) {
      first.resolve({ header: this.#headerOf(header), id: ID, ttlMs: ttlToModel(TTL) });
    } else
      first.reject(new HoldfastError('lease-not-found', `lease ${leaseHex(ID)} does not exist`));
  }

  /** The stream is of no use any more: everybody on it hears why, the next renewal opens another. */
  #abandon(open: Open, error: HoldfastError): void {
    // A refusal of one lease says nothing about the stream.
    if (error.code === 'lease-not-found') return;
    if (this.#open === open) this.#open = undefined;
    open.call.then(
      ({ call, member }) => {
        call.cancel();
        if (error.code !== 'closed') this.#channel.leave(member);
      },
      () => {},
    );
    for (const waiting of open.waiting.values()) for (const answer of waiting) answer.reject(error);
    open.waiting.clear();
  }
}
