/**
 * When a guard refuses a fresh grant, the authority has forgotten what it granted before: it was
 * restored from a backup. Its era is lifted past the mark, so that new tokens count again.
 *
 * A mark far ahead is more likely invented than earned; lifting by it could use up all eras at
 * once, so beyond `ERA_JUMP_MAX` it is refused. Every lift leaves a record.
 */
import { utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { makeToken, type Token, tokenEra } from '../model/token.ts';
import { type Authority, backOff, type Identity, mayPass } from './authority.ts';
import { ownKey } from './keys.ts';

export interface StaleReport {
  /** The era was raised; grants made from now on pass the mark. */
  readonly lifted: boolean;
  readonly era: number;
}

/** Eras that one report may add; each restore needs one. */
export const ERA_JUMP_MAX = 16;
const ATTEMPTS_MAX = 10;

export async function reportStale(
  authority: Authority,
  mark: Token,
  by: Identity,
): Promise<StaleReport> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await lift(authority, mark, by);
    } catch (error) {
      if (!mayPass(error) || attempt >= ATTEMPTS_MAX) throw error;
    }
    await backOff(authority, attempt);
  }
}

async function lift(authority: Authority, mark: Token, by: Identity): Promise<StaleReport> {
  const { engine, namespace, clock } = authority;
  const { header } = await engine.status();
  // Tokens made from now on are above the mark anyhow: a newer holder acted, nothing went back.
  if (makeToken(header.era, header.revision) >= mark) return { lifted: false, era: header.era };
  const era = tokenEra(mark) + 1;
  if (era - header.era > ERA_JUMP_MAX) {
    throw new HoldfastError(
      'era-regressed',
      `the mark ${mark} is ${era - header.era} eras ahead of the authority; ${ERA_JUMP_MAX} are plausible. Look at the guard's mark before lifting the era by hand`,
      { mark },
    );
  }
  const lifted = await engine.liftEra(era);
  const record = { mark: String(mark), from: header.era, to: era, by: by.holder, at: clock.wall() };
  await engine.txn({
    success: [
      {
        type: 'put',
        key: ownKey(namespace, 'era', String(era).padStart(5, '0')),
        value: utf8(JSON.stringify(record)),
      },
    ],
  });
  return { lifted: true, era: lifted.era };
}
