/**
 * The rule of every guard, pure.
 *
 * The mark is the highest token a resource has admitted. An operation passes only if its token
 * passes the mark, and then the mark is the token: compare-max, never last-caller-wins, so a stale
 * holder that wakes up and claims again gains nothing. Guards differ only in how they make mark
 * and effect one atomic step.
 */
import type { Token } from '../model/token.ts';

/**
 * `reign`: a holder acts many times under one token (token ≥ mark).
 * `once`: each token acts at most once (token > mark): tickets, ticks, purges.
 */
export type Rule = 'reign' | 'once';

/** The mark of a resource nobody has acted on. Every token passes it. */
export const NO_MARK: Token = 0n;

export interface Verdict {
  readonly admitted: boolean;
  /** The mark afterwards: raised when admitted, as it was when refused. */
  readonly mark: Token;
}

export function admit(mark: Token, token: Token, rule: Rule): Verdict {
  const admitted = rule === 'reign' ? token >= mark : token > mark;
  return { admitted, mark: admitted ? token : mark };
}

/**
 * Where readers are fenced too, two marks are kept. A reader passes unless a newer *writer* has
 * acted, so readers never refuse each other; a writer must pass both, so that nothing is written
 * behind the back of a newer reader.
 */
export interface SharedMarks {
  readonly writers: Token;
  readonly readers: Token;
}

export interface SharedVerdict {
  readonly admitted: boolean;
  readonly marks: SharedMarks;
}

export function admitReader(marks: SharedMarks, token: Token): SharedVerdict {
  if (token < marks.writers) return { admitted: false, marks };
  const readers = token > marks.readers ? token : marks.readers;
  return { admitted: true, marks: { writers: marks.writers, readers } };
}

export function admitWriter(marks: SharedMarks, token: Token, rule: Rule): SharedVerdict {
  const unread = token >= marks.readers;
  const { admitted, mark } = admit(marks.writers, token, rule);
  if (!admitted || !unread) return { admitted: false, marks };
  return { admitted: true, marks: { writers: mark, readers: marks.readers } };
}

/** What a refusal says; `once` refuses an equal token, so `<` would be a lie there. */
export function refusalText(token: Token, mark: Token): string {
  return token < mark
    ? `stale: token ${token} < mark ${mark}`
    : `stale: token ${token} = mark ${mark}, and each token acts only once`;
}
