/**
 * Two tenants on one durable server: one floods it with writes of every size, transactions, ranges
 * and watches, the other renews its leases and takes its locks. What the quiet one waits must stay
 * within twice what it waits alone, in the median and in the 99th percentile.
 *
 * Windows with and without the flood alternate, so that what else the machine does meets both.
 * Control: the same flood without limits and without turns.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import type { TenantLimits } from '../src/server/tenants/meter.ts';
import { AuthService } from '../src/wire/messages/services.ts';
import { GrpcClient } from '../src/wire/net/grpc-client.ts';
import type { Tally } from './tenants/flood.ts';
import { Quiet, type Waits } from './tenants/quiet.ts';

export const experiment: Experiment = {
  about: 'a tenant that floods the server does not delay the renewals and locks of another',
  run,
};

const PASSWORD = 'a-long-password';
const LIMITS: TenantLimits = { requestsPerSecond: 500, writesInFlight: 64 };
const UNLIMITED: TenantLimits = { writesInFlight: 1e9, turns: false };
const FACTOR_MAX = 2;
const SHORT: Extent = { windowMs: 3_000, samples: 2_000, pairs: 5 };
const LONG: Extent = { windowMs: 5_000, samples: 10_000, pairs: 40 };
const CONTROL: Extent = { windowMs: 2_000, samples: 100, pairs: 2 };
/** For what the flood left behind to be done with, before the other is measured alone. */
const SETTLE_MS = 200;
const QUANTILES = { median: 0.5, p99: 0.99 };
const KINDS = ['renewal', 'lock'] as const;
type Kind = (typeof KINDS)[number];

/** Pairs of windows go on until there are so many samples of each kind, or so many pairs. */
interface Extent {
  readonly windowMs: number;
  readonly samples: number;
  readonly pairs: number;
}

interface Measured {
  readonly alone: Waits;
  readonly beside: Waits;
  /** Every other window alone, and those between: how far the machine differs from itself. */
  readonly halves: readonly [Waits, Waits];
  readonly flood: Tally;
}

async function run(context: Context): Promise<Report> {
  const extent = context.long ? LONG : SHORT;
  const limited = await measure(context, 'limited', { limits: LIMITS, extent });
  const unlimited = await measure(context, 'unlimited', { limits: UNLIMITED, extent: CONTROL });
  const worst = Math.max(...KINDS.map((kind) => worstFactor(limited, kind)));
  const unheld = Math.min(...KINDS.map((kind) => worstFactor(unlimited, kind)));
  return {
    ok: worst <= FACTOR_MAX && limited.flood.accepted > 0 && unheld > FACTOR_MAX,
    figures: figures(limited),
    control: figures(unlimited),
  };
}

function nothing(): Waits {
  return { renewal: [], lock: [], sync: [] };
}

function together([one, other]: Measured['halves']): Waits {
  return {
    renewal: [...one.renewal, ...other.renewal],
    lock: [...one.lock, ...other.lock],
    sync: [...one.sync, ...other.sync],
  };
}

function fewest([one, other]: Measured['halves'], beside: Waits): number {
  return Math.min(one.lock.length + other.lock.length, beside.lock.length);
}

/** What of a factor is the machine's: alone against alone. */
function unrest([one, other]: Measured['halves'], kind: Kind): number {
  const factor = worse(one[kind], other[kind], QUANTILES.p99);
  return Math.max(factor, 1 / factor);
}

function figures(measured: Measured): Record<string, string | number> {
  const { alone, beside, halves, flood } = measured;
  const shown = (waits: readonly number[]): string =>
    Object.values(QUANTILES)
      .map((share) => quantile(waits, share).toFixed(2))
      .join(' / ');
  const lines: Record<string, string | number> = {};
  for (const kind of [...KINDS, 'sync'] as const) {
    lines[`${kind} ms alone, p50 / p99`] = shown(alone[kind]);
    lines[`${kind} ms beside the flood`] = shown(beside[kind]);
  }
  for (const [name, factor] of factors(measured)) lines[name] = factor.toFixed(2);
  for (const kind of KINDS) {
    lines[`${kind}, p99, alone against alone`] = unrest(halves, kind).toFixed(2);
  }
  return {
    ...lines,
    'samples of each kind, alone': alone.lock.length,
    'samples beside the flood': beside.lock.length,
    'flood requests answered': flood.accepted,
    'flood requests refused': flood.refused,
  };
}

function factors({ alone, beside }: Measured): Map<string, number> {
  const all = new Map<string, number>();
  for (const kind of KINDS) {
    for (const [name, share] of Object.entries(QUANTILES)) {
      all.set(`${kind}, ${name}, times`, worse(alone[kind], beside[kind], share));
    }
  }
  return all;
}

function worstFactor({ alone, beside }: Measured, kind: Kind): number {
  const each = Object.values(QUANTILES).map((share) => worse(alone[kind], beside[kind], share));
  return Math.max(...each);
}

function worse(alone: Waits[Kind], beside: Waits[Kind], share: number): number {
  return quantile(beside, share) / quantile(alone, share);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

async function measure(
  context: Context,
  name: string,
  { limits, extent }: { readonly limits: TenantLimits; readonly extent: Extent },
): Promise<Measured> {
  const directory = join(context.scratch, name);
  const [server, port] = await started<number>(context, 'server', [
    directory,
    JSON.stringify(limits),
  ]);
  const admin = new GrpcClient({ port });
  await populate(admin);
  const client = new GrpcClient({ port, metadata: [['token', await tokenOf(admin, 'b/y')]] });
  const token = await tokenOf(admin, 'a/x');
  const [flood] = await started(context, 'flood', [String(port), token]);
  const quiet = await Quiet.open(client, context.scratch);
  const halves = [nothing(), nothing()] as const;
  const beside = nothing();
  const { windowMs, samples, pairs } = extent;
  await quiet.work(windowMs / 2, nothing());
  let tally: Tally = { accepted: 0, refused: 0 };
  for (let pair = 0; pair < pairs; pair++) {
    await quiet.work(windowMs, halves[pair % 2]!);
    await told(flood, 'flood');
    await quiet.work(windowMs, beside);
    tally = await told(flood, 'stand still');
    if (fewest(halves, beside) >= samples) break;
    await pause(SETTLE_MS);
  }
  for (const each of [admin, client]) each.destroy();
  for (const each of [flood, server]) each.disconnect();
  const found = fewest(halves, beside);
  if (found < samples) {
    context.log(`${name}: ${found} samples in the time there was, where ${samples} were wanted`);
  }
  context.log(
    `${name}: ${tally.accepted} requests of the flood answered, ${tally.refused} refused`,
  );
  return { alone: together(halves), beside, halves, flood: tally };
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

async function started<T>(
  context: Context,
  name: string,
  args: readonly string[],
): Promise<[ChildProcess, T]> {
  const child = fork(new URL(`./tenants/${name}.ts`, import.meta.url).pathname, args, {
    execArgv: ['--conditions=holdfast/source', '--import', 'tsx'],
  });
  child.once('exit', (code, signal) => {
    if (child.connected || code !== 0) context.log(`the ${name} ended: ${signal ?? code}`);
  });
  context.cleanup(() => child.removeAllListeners('exit').kill('SIGKILL'));
  return [child, await heard<T>(child)];
}

function heard<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (): void => reject(new Error('a process ended that was to answer'));
    child.once('exit', ended);
    child.once('message', (word) => {
      child.off('exit', ended);
      resolve(word as T);
    });
  });
}

/** Tells a process something, and answers what it says to that. */
async function told<T>(child: ChildProcess, word: string): Promise<T> {
  const answer = heard<T>(child);
  child.send(word);
  return answer;
}
