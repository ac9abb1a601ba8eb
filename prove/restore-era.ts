/**
 * Restores older backups, again and again and in any order, into the same directory, and looks at
 * the tokens: each is greater than every token that any lost history ever issued.
 *
 * The control puts the older data file back by hand, without its witness; it must issue a token
 * twice.
 */
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { seededRandom } from '../src/base/random.ts';
import { DATA_FILE } from '../src/engine/lmdb/directory.ts';
import { type LmdbEngine, openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import { restore } from '../src/engine/lmdb/restore.ts';
import { makeToken, type Token } from '../src/model/token.ts';

export const experiment: Experiment = {
  about: 'restore older backups; every later token is above every token ever issued',
  run,
};

async function run(context: Context): Promise<Report> {
  const random = seededRandom(context.seed);
  const path = join(context.scratch, 'store');
  const backups: Uint8Array[] = [];
  const rounds = Number(context.options.rounds ?? (context.long ? 200 : 25));
  let highest: Token = 0n;
  let tokens = 0;
  let notAbove = 0;
  let restores = 0;
  let eras = 0;
  for (let round = 0; round < rounds; round++) {
    const engine = await openLmdbEngine(path);
    for (let i = random.integer(1, 40); i > 0; i--) {
      const token = await acquire(engine);
      tokens++;
      if (token <= highest) notAbove++;
      else highest = token;
      if (random.chance(0.05)) backups.push(await backup(engine));
    }
    await engine.close();
    if (backups.length === 0 || random.chance(0.2)) continue;
    // Any of them, the newest or the very first, one of them perhaps for the tenth time.
    const { era } = await restore([random.pick(backups)], path);
    restores++;
    eras = era;
  }
  const control = await withoutWitness(context);
  return {
    ok: notAbove === 0 && restores > 0 && control.broke === true,
    figures: {
      restores,
      'backups to choose from': backups.length,
      'tokens issued': tokens,
      'tokens not above all before': notAbove,
      'last era': eras,
      'highest token': highest.toString(),
    },
    control,
  };
}

/** What a lock does to get its token: one revision of its own. */
async function acquire(engine: LmdbEngine): Promise<Token> {
  const { header } = await engine.txn({
    success: [{ type: 'put', key: utf8('lock/a'), value: utf8('holder') }],
  });
  return makeToken(header.era, header.revision);
}

async function backup(engine: LmdbEngine): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of engine.operator.backup()) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function withoutWitness(context: Context): Promise<Report['control']> {
  const path = join(context.scratch, 'control');
  const issue = async (count: number): Promise<Token[]> => {
    const engine = await openLmdbEngine(path);
    const tokens: Token[] = [];
    for (let i = 0; i < count; i++) tokens.push(await acquire(engine));
    await engine.close();
    return tokens;
  };
  await issue(3);
  copyFileSync(join(path, DATA_FILE), join(context.scratch, 'older'));
  const lost = await issue(5);
  copyFileSync(join(context.scratch, 'older'), join(path, DATA_FILE));
  rmSync(join(path, 'era'));
  const again = await issue(5);
  const twice = again.filter((token) => lost.includes(token)).length;
  return { what: 'the data file put back by hand', 'tokens issued twice': twice, broke: twice > 0 };
}
