/**
 * Two tenants on one durable server: one floods it with writes, the other renews its leases and takes
 * its locks. What the quiet one waits must stay within twice what it waits alone.
 *
 * Control: the same flood without limits.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import { serve } from '../src/server/serve.ts';
import type { TenantLimits } from '../src/server/tenants/meter.ts';
import { AuthService, LeaseService, LockService } from '../src/wire/messages/services.ts';
import { GrpcClient } from '../src/wire/net/grpc-client.ts';

export const experiment: Experiment = {
  about: 'a tenant that floods the server does not delay the renewals and locks of another',
  run,
};

const PASSWORD = 'a-long-password';
const LIMITS: TenantLimits = { requestsPerSecond: 200, writesInFlight: 8 };
/** Two counted requests in each cycle: at most 80 in a second. */
const CYCLE_PAUSE_MS = 25;
const FACTOR_MAX = 2;
/** Below this a factor says more about the clock than about the server. */
const FLOOR_MS = 2;

interface Tally {
  readonly accepted: number;
  readonly refused: number;
}

interface Waits {
  readonly renewal: readonly number[];
  readonly lock: readonly number[];
}

interface Measured {
  readonly alone: Waits;
  readonly beside: Waits;
  readonly floodAccepted: number;
  readonly floodRefused: number;
}

async function run(context: Context): Promise<Report> {
  const ms = context.long ? 20_000 : 5_000;
  const limited = await measure(context, 'limited', LIMITS, ms);
  const unlimited = await measure(context, 'unlimited', { writesInFlight: 1e9 }, ms);
  const factor = Math.max(worse(limited, 'renewal'), worse(limited, 'lock'));
  const control = Math.max(worse(unlimited, 'renewal'), worse(unlimited, 'lock'));
  return {
    ok: factor <= FACTOR_MAX && limited.floodRefused > 0 && control > FACTOR_MAX,
    figures: figures(limited),
    control: figures(unlimited),
  };
}

function figures(measured: Measured): Record<string, string | number> {
  const shown = (waits: readonly number[]): string =>
    `${quantile(waits, 0.5).toFixed(1)} / ${quantile(waits, 0.99).toFixed(1)}`;
  return {
    'renewal ms alone, p50 / p99': shown(measured.alone.renewal),
    'renewal ms beside the flood': shown(measured.beside.renewal),
    'lock ms alone, p50 / p99': shown(measured.alone.lock),
    'lock ms beside the flood': shown(measured.beside.lock),
    'renewal, median, times': worse(measured, 'renewal').toFixed(2),
    'lock, median, times': worse(measured, 'lock').toFixed(2),
    'flood writes accepted': measured.floodAccepted,
    'flood writes refused': measured.floodRefused,
  };
}

function worse({ alone, beside }: Measured, what: keyof Waits): number {
  const before = Math.max(FLOOR_MS, quantile(alone[what], 0.5));
  return Math.max(FLOOR_MS, quantile(beside[what], 0.5)) / before;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

async function measure(
  context: Context,
  name: string,
  tenantLimits: TenantLimits,
  ms: number,
): Promise<Measured> {
  const engine = await openLmdbEngine(join(context.scratch, name));
  const server = await serve({ engine, listen: { port: 0 }, tenantLimits });
  context.cleanup(async () => {
    await server.close();
    await engine.close();
  });
  const { port } = server;
  const admin = new GrpcClient({ port });
  await populate(admin);
  const quiet = new GrpcClient({ port, metadata: [['token', await tokenOf(admin, 'b/y')]] });
  const alone = await waits(quiet, ms);
  const flood = await startFlood(context, port, await tokenOf(admin, 'a/x'));
  const beside = await waits(quiet, ms);
  const { accepted, refused } = await flood.stop();
  for (const client of [admin, quiet]) client.destroy();
  context.log(`${name}: ${accepted} writes of the flood accepted, ${refused} refused`);
  return { alone, beside, floodAccepted: accepted, floodRefused: refused };
}

async function populate(admin: GrpcClient): Promise<void> {
  for (const name of ['root', 'a/x', 'b/y']) {
    await admin.unary(AuthService.UserAdd, { name, password: PASSWORD });
    // Root of a tenant: everything of the tenant's, and nothing beside it.
    await admin.unary(AuthService.UserGrantRole, { user: name, role: 'root' });
  }
  await admin.unary(AuthService.AuthEnable, {});
}

async function tokenOf(client: GrpcClient, name: string): Promise<string> {
  const { token } = await client.unary(AuthService.Authenticate, { name, password: PASSWORD });
  return token;
}

/** Renewals and lock cycles, one after another, for a while: what each took. */
async function waits(client: GrpcClient, ms: number): Promise<Waits> {
  const { ID } = await client.unary(LeaseService.LeaseGrant, { TTL: 60 });
  const keepAlive = client.stream(LeaseService.LeaseKeepAlive);
  const answers = keepAlive.responses()[Symbol.asyncIterator]();
  const renewal: number[] = [];
  const lock: number[] = [];
  const until = performance.now() + ms;
  while (performance.now() < until) {
    let began = performance.now();
    keepAlive.send({ ID });
    await answers.next();
    renewal.push(performance.now() - began);
    began = performance.now();
    const { key } = await client.unary(LockService.Lock, { name: utf8('chair'), lease: ID });
    await client.unary(LockService.Unlock, { key });
    lock.push(performance.now() - began);
    // A quiet tenant stays below its own limit, however fast the store is.
    await pause(CYCLE_PAUSE_MS);
  }
  keepAlive.cancel();
  return { renewal, lock };
}

async function startFlood(
  context: Context,
  port: number,
  token: string,
): Promise<{ stop(): Promise<Tally> }> {
  const flood = fork(
    new URL('./tenants/flood.ts', import.meta.url).pathname,
    [String(port), token],
    {
      execArgv: ['--conditions=holdfast/source', '--import', 'tsx'],
    },
  );
  context.cleanup(() => flood.kill('SIGKILL'));
  await once(flood, 'message');
  return {
    stop: async () => {
      const told = once(flood, 'message') as Promise<[Tally]>;
      flood.send('stop');
      return (await told)[0];
    },
  };
}
