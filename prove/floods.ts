/**
 * Floods on the HTTP/2 server: each must cost the attacker its connection, the server bounded memory
 * and time, and a well-behaved client nothing. Control: the same floods on a server without limits,
 * where the attackers keep their connections.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { FLOODS, type FloodResult, runFlood, victim } from '../test/http2/floods.ts';
import { certificate } from '../test/http2/harness.ts';

/** An attacker on our patience waits for the shortened times of the victim, and a sweep. */
const LOST_WITHIN_MS = 5_000;
const GROWN_BYTES_MAX = 128 * 2 ** 20;
const SLOWEST_MS_MAX = 1_500;

function held(result: FloodResult): boolean {
  return (
    result.lost === result.attackers &&
    result.grownBytes < GROWN_BYTES_MAX &&
    result.served > 0 &&
    result.slowestMs < SLOWEST_MS_MAX
  );
}

function row(result: FloodResult, verdict: string): string {
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  return [
    result.name.padEnd(42),
    `${result.lost}/${result.attackers} lost`.padEnd(14),
    `after ${result.lostAfterMs.toFixed(0)} ms`.padEnd(15),
    `sent ${mib(result.sentBytes)} MiB`.padEnd(17),
    `grew ${mib(result.grownBytes)} MiB`.padEnd(16),
    `served ${result.served}, slowest ${result.slowestMs.toFixed(0)} ms`.padEnd(32),
    verdict,
  ].join(' ');
}

async function run(context: Context): Promise<Report> {
  const made = certificate(context.scratch);
  const limited = await victim(context.cleanup, made, 'limits');
  const results: FloodResult[] = [];
  for (const flood of FLOODS) {
    const result = await runFlood(context.cleanup, flood, limited, LOST_WITHIN_MS);
    results.push(result);
    context.log(row(result, held(result) ? 'held' : 'FAILED'));
  }
  context.log('\nwithout limits:');
  const open = await victim(context.cleanup, made, 'off');
  const forMs = context.long ? 10_000 : 1_300;
  const unharmed: FloodResult[] = [];
  for (const flood of FLOODS) {
    const result = await runFlood(context.cleanup, flood, open, forMs);
    if (result.lost < result.attackers) unharmed.push(result);
    context.log(row(result, result.lost < result.attackers ? 'goes on' : 'lost'));
  }
  const broke = unharmed.length === FLOODS.length;
  return {
    ok: results.every(held) && broke,
    figures: {
      floods: FLOODS.length,
      held: results.filter(held).length,
      'longest until lost, ms': Math.round(Math.max(...results.map((r) => r.lostAfterMs))),
      'most memory grown, MiB': Math.round(Math.max(...results.map((r) => r.grownBytes)) / 2 ** 20),
      'slowest honest call, ms': Math.round(Math.max(...results.map((r) => r.slowestMs))),
    },
    control: {
      broke,
      'attackers that go on': unharmed.length,
      'bytes they sent, MiB': Math.round(
        unharmed.reduce((sum, r) => sum + r.sentBytes, 0) / 2 ** 20,
      ),
    },
  };
}

export const experiment: Experiment = {
  about: 'HTTP/2 floods cost the attacker its connection and an honest client nothing',
  needs: { openssl: 'openssl' },
  run,
};
