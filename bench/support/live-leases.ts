/** Many leases of one short TTL, each renewed well in time: none may be told that it is gone. */
import { systemClock } from '../../src/base/system.ts';
import { LeaseService } from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';

export interface LiveLeases {
  readonly renewals: number;
  /** Renewals that were answered with "gone" although they came in time. */
  readonly falseExpiries: number;
  /** Renewals that this client itself sent too late to prove anything. */
  readonly sentLate: number;
  /** The control: a lease that nobody renews is gone at the end. */
  readonly unrenewedGone: boolean;
}

/** When a lease is to be renewed again. */
interface Due {
  readonly index: number;
  readonly atMs: number;
}

const CONNECTIONS = 10;
const GRANTS_AT_ONCE = 256;
const TTL_SECONDS = 10;
/** A lease is renewed each time a third of its TTL is over, as clients do. */
const ROUND_MS = 3_333;
const STEP_MS = 10;
/** Renewed later than this after the last answer, an expiry is the client's fault. */
const LATE_MS = 9_000;

export async function liveLeases(
  port: number,
  count: number,
  seconds: number,
): Promise<LiveLeases> {
  const clients = Array.from({ length: CONNECTIONS }, () => new GrpcClient({ port }));
  const answeredAt = new Map<bigint, number>();
  let [renewals, falseExpiries, sentLate] = [0, 0, 0];
  const streams = clients.map((client) =>
    client.stream(LeaseService.LeaseKeepAlive, {
      listener: {
        onMessage: ({ ID, TTL }) => {
          renewals++;
          if (TTL > 0) answeredAt.set(ID, systemClock.now());
          else if (answeredAt.delete(ID)) falseExpiries++;
        },
        onEnd: () => {},
      },
    }),
  );
  const ids: bigint[] = [];
  /** False: the lease is gone, or this renewal would prove nothing. */
  const renew = (index: number): boolean => {
    const ID = ids[index]!;
    const last = answeredAt.get(ID);
    if (last === undefined) return false;
    if (systemClock.now() - last > LATE_MS) {
      sentLate++;
      answeredAt.delete(ID);
      return false;
    }
    streams[index % CONNECTIONS]!.send({ ID });
    return true;
  };
  const grantOne = async (client: GrpcClient): Promise<bigint> =>
    (await client.unary(LeaseService.LeaseGrant, { TTL: TTL_SECONDS })).ID;
  const abandoned = await grantOne(clients[0]!);

  // All wait equally long for their next renewal, so who was renewed first is due first. Renewing
  // begins with the first grant: granting all may take longer than a TTL.
  let waiting: Due[] = [];
  let next = 0;
  const step = setInterval(() => {
    const now = systemClock.now();
    for (; next < waiting.length && waiting[next]!.atMs <= now; next++) {
      const { index } = waiting[next]!;
      if (renew(index)) waiting.push({ index, atMs: now + ROUND_MS });
    }
    if (next > count) {
      waiting = waiting.slice(next);
      next = 0;
    }
  }, STEP_MS);
  try {
    while (ids.length < count) {
      const wanted = Math.min(GRANTS_AT_ONCE, count - ids.length);
      const granted = await Promise.all(
        Array.from({ length: wanted }, (_, i) => grantOne(clients[i % CONNECTIONS]!)),
      );
      const now = systemClock.now();
      for (const id of granted) {
        answeredAt.set(id, now);
        waiting.push({ index: ids.push(id) - 1, atMs: now + ROUND_MS });
      }
    }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
  } finally {
    clearInterval(step);
  }
  const { TTL } = await clients[0]!.unary(LeaseService.LeaseTimeToLive, { ID: abandoned });
  for (const stream of streams) stream.cancel();
  for (const client of clients) client.destroy();
  return { renewals, falseExpiries, sentLate, unrenewedGone: TTL < 0 };
}
