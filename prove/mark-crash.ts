/**
 * A crash between mark and effect, at every step of every guard: afterwards the mark is not behind
 * the data, and a token older than the data does not pass. The control notes the mark after the
 * effect, as suggests itself.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { install } from '../scripts/packages.mjs';
import { HoldfastError } from '../src/model/errors.ts';
import { LOCAL, type LocalGuard, naive } from './guards/crash-local.ts';
import { type Aftermath, REMOTE } from './guards/crash-remote.ts';
import { GUARDS, type GuardName } from './guards/subjects.ts';

const PACKAGES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  postgres: { initdb: 'postgresql-15' },
  redis: { 'redis-server': 'redis-server' },
};

export const experiment: Experiment = {
  about: 'a crash at every step: the mark is never behind the data: --guard NAME (default file)',
  async run(context: Context): Promise<Report> {
    const guard = (context.options.guard ?? 'file') as GuardName;
    if (!GUARDS.includes(guard)) throw new Error(`--guard is one of ${GUARDS.join(', ')}`);
    const lacking = install({ ...PACKAGES[guard] });
    if (lacking.length > 0) throw new Error(`not installed: ${lacking.join(', ')}`);
    const guarded = verdict(context, await crashes(context, guard, true));
    context.log('control, the mark noted after the effect:');
    const control = verdict(context, await crashes(context, guard, false));
    const broke = control['mark behind the data'] > 0 && control['stale token passed'] > 0;
    const held = guarded['mark behind the data'] === 0 && guarded['stale token passed'] === 0;
    return {
      ok: held && broke && guarded['effects seen after a crash'] > 0,
      figures: { guard, ...guarded },
      control: { broke, ...control },
    };
  },
};

type Verdict = Record<
  'crashes' | 'effects seen after a crash' | 'mark behind the data' | 'stale token passed',
  number
>;

function verdict(context: Context, aftermath: readonly Aftermath[]): Verdict {
  for (const { step, data, mark, stalePassed } of aftermath) {
    context.log(
      `  ${step.padEnd(18)} data ${data}, mark ${mark}, older token ${stalePassed ? 'PASSED' : 'refused'}`,
    );
  }
  const count = (which: (each: Aftermath) => boolean): number => aftermath.filter(which).length;
  return {
    crashes: aftermath.length,
    'effects seen after a crash': count(({ data }) => data > 0n),
    'mark behind the data': count(({ data, mark }) => mark < data),
    'stale token passed': count(({ stalePassed }) => stalePassed),
  };
}

async function crashes(
  { scratch, long }: Context,
  guard: GuardName,
  guarded: boolean,
): Promise<readonly Aftermath[]> {
  const remote = REMOTE[guard];
  if (remote) return await remote(guarded, long ? 60 : 8);
  const name = guarded ? guard : 'naive';
  const local = guarded ? LOCAL[guard]! : naive;
  const aftermath: Aftermath[] = [];
  for (const step of local.steps) {
    const directory = join(scratch, `${name}-${step}`);
    mkdirSync(directory);
    aftermath.push(await crashAt(name, local, directory, step));
  }
  return aftermath;
}

async function crashAt(
  name: string,
  local: LocalGuard,
  directory: string,
  step: string,
): Promise<Aftermath> {
  await local.write(directory, 33n, () => {});
  const flags = ['--conditions=holdfast/source', '--import', 'tsx'];
  const program = join(import.meta.dirname, 'guards/crash-local.ts');
  const child = spawn(process.execPath, [...flags, program, name, directory, '34', step], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code, signal] = await once(child, 'exit');
  if (signal !== 'SIGKILL') throw new Error(`${name} did not reach "${step}" (exit ${code})`);
  // Whoever looks at the mark first also finishes what was left.
  const mark = await local.mark(directory);
  const data = BigInt(readFileSync(join(directory, 'data'), 'utf8'));
  const stalePassed = await local
    .write(directory, data - 1n, () => {})
    .then(
      () => true,
      (error) => {
        if (HoldfastError.is(error, 'stale')) return false;
        throw error;
      },
    );
  return { step, data, mark, stalePassed };
}
