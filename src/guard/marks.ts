/**
 * Marks for guards whose resource cannot keep them itself (HTTP services, devices, caches): the
 * mark is raised durably *before* the effect begins, so it is never behind what was done.
 */
import { admit, NO_MARK, type Rule } from './fence.ts';
import type { Claim, Mark } from './gate.ts';

export interface MarkVerdict {
  readonly admitted: boolean;
  readonly mark: Mark;
}

export interface MarkStore {
  /** Compares and raises in one durable step. Errors: `storage-failed`, `corrupt`, `closed`. */
  raise(claim: Claim, rule: Rule, atMs: number): Promise<MarkVerdict>;
  mark(resource: string): Promise<Mark>;
  close(): Promise<void>;
}

export interface Decision extends MarkVerdict {
  /** The mark changed and must be stored before the effect. */
  readonly raised: boolean;
}

/** The decision on one stored mark; every store makes it here. */
export function decide(
  present: Mark | undefined,
  claim: Claim,
  rule: Rule,
  atMs: number,
): Decision {
  const mark = present ?? { token: NO_MARK };
  const { admitted } = admit(mark.token, claim.token, rule);
  const raised = admitted && claim.token > mark.token;
  const next: Mark = raised ? { token: claim.token, holder: claim.holder, atMs } : mark;
  return { admitted, raised, mark: next };
}

/** Gone with the process: for tests, and for effects that are gone with it too. */
export class MemoryMarks implements MarkStore {
  readonly #marks = new Map<string, Mark>();

  async raise(claim: Claim, rule: Rule, atMs: number): Promise<MarkVerdict> {
    const { admitted, mark } = decide(this.#marks.get(claim.resource), claim, rule, atMs);
    if (admitted) this.#marks.set(claim.resource, mark);
    return { admitted, mark };
  }

  async mark(resource: string): Promise<Mark> {
    return this.#marks.get(resource) ?? { token: NO_MARK };
  }

  async close(): Promise<void> {
    this.#marks.clear();
  }
}
