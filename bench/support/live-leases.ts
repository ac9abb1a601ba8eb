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

const CONNECTIONS = 10;
const GRANTS_AT_ONCE = 256;
const TTL_SECONDS = 10;
/** A lease is renewed each time a third of its TTL is over, as clients do. */
const ROUND_MS = 3_333;
const STEP_MS = 33;
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
  const renew = (index: number): void => {
    const ID = ids[index]!;
    const last = answeredAt.get(ID);
    if (last === undefined) return;
    if (systemClock.now() - last > LATE_MS) {
      sentLate++;
      answeredAt.delete(ID);
      return;
    }
    streams[index % CONNECTIONS]!.send({ ID });
  };
  const grantOne = async (client: GrpcClient): Promise<bigint> =>
    (await client.unary(LeaseService.LeaseGrant, { TTL: TTL_SECONDS })).ID;
  const abandoned = await grantOne(clients[0]!);

  // Renewing begins with the first grant: granting all may take longer than a TTL.
  let cursor = 0;
  const step = setInterval(() => {
    const due = Math.ceil((ids.length * STEP_MS) / ROUND_MS);
    for (let i = 0; i < due; i++) renew(cursor++ % ids.length);
  }, STEP_MS);
  try {
    while (ids.length < count) {
      const wanted = Math.min(GRANTS_AT_ONCE, count - ids.length);
      const granted = await Promise.all(
        Array.from({ length: wanted }, (_, i) => grantOne(clients[i % CONNECTIONS]!)),
      );
      for (const id of granted) answeredAt.set(id, systemClock.now());
      ids.push(...granted);
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
