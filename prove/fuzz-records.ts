/**
 * Fuzzes what is read from a disk: data files, segments of the journal and what is in them, backups.
 * Short: 4 s for each target; long: 11 minutes, or `--minutes N`; `--target NAME` for one alone.
 * Control: for each target a reader that leaves its checks out, which the fuzzer must find.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { judged, mebibytes, wantedTargets } from '../test/fuzz-judge.ts';
import { fuzzRecords, recordsTargets } from '../test/security/fuzz-records.ts';

const SLOWEST_MS_MAX = 2_000;

async function run(context: Context): Promise<Report> {
  const minutes = Number(context.options.minutes ?? (context.long ? 11 : 1 / 15));
  const all = await recordsTargets(context.scratch);
  const wanted = wantedTargets(all, context.options.target);
  const figures: Record<string, number> = { 'seconds for each target': minutes * 60 };
  const control: Record<string, number | string> = {};
  let ok = true;
  let broke = true;
  for (const target of wanted) {
    const { name } = target;
    const judgement = await judged(
      name,
      () => fuzzRecords(target, context.seed, { inputs: 200 }),
      () => fuzzRecords(target, context.seed, { forMs: minutes * 60_000 }),
    );
    const { result } = judgement;
    const { finding } = result;
    if (finding) context.log(`FOUND in ${name}, seed ${finding.seed}: ${finding.what}`);
    ok &&= !finding && !judgement.holdsMemory && result.slowestMs < SLOWEST_MS_MAX;
    figures[`${name}: inputs`] = result.inputs;
    figures[`${name}: read as it was`] = result.accepted;
    figures[`${name}: slowest, ms`] = Math.round(result.slowestMs);
    figures[`${name}: memory kept, MiB`] = mebibytes(judgement.retainedBytes);
    figures[`${name}: memory grown, MiB`] = mebibytes(judgement.grownBytes);
    const planted = await fuzzRecords(target, context.seed, { inputs: 5_000 }, target.careless);
    broke &&= planted.finding !== undefined;
    control[`${name}: found after inputs`] = planted.finding ? planted.inputs : 'NOT FOUND';
  }
  return { ok: ok && broke, figures, control: { broke, ...control } };
}

export const experiment: Experiment = {
  about: 'data files, journals and backups altered (--minutes N for each)',
  run,
};
