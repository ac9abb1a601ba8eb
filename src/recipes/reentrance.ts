/** What an owner of a session already holds, given to it again and counted. */
import { Grant, type GrantParts } from './grant.ts';
import type { Session } from './session.ts';

interface Shared {
  readonly parts: Promise<GrantParts | undefined>;
  readonly handles: Set<Grant>;
  /** Callers between asking and having a handle. */
  arriving: number;
}

const SHARED = new WeakMap<Session, Map<string, Shared>>();

/** A grant of its own for each call; the claim is given back with the last of them. */
export async function reenter(
  session: Session,
  owner: string,
  claim: () => Promise<GrantParts | undefined>,
): Promise<Grant | undefined> {
  const all = SHARED.get(session) ?? new Map<string, Shared>();
  SHARED.set(session, all);
  for (;;) {
    const present = all.get(owner);
    const usable = present && (present.arriving > 0 || [...present.handles].some((g) => g.held));
    const shared = usable ? present : { parts: claim(), handles: new Set<Grant>(), arriving: 0 };
    all.set(owner, shared);
    shared.arriving++;
    try {
      const parts = await shared.parts;
      return parts && handle(all, owner, shared, parts);
    } catch (error) {
      if (all.get(owner) === shared) all.delete(owner);
      // The first caller gave up; this one has not.
      if (!usable) throw error;
    } finally {
      shared.arriving--;
    }
  }
}

function handle(all: Map<string, Shared>, owner: string, shared: Shared, parts: GrantParts): Grant {
  const grant = new Grant({
    ...parts,
    giveBack: async () => {
      shared.handles.delete(grant);
      if (shared.handles.size > 0 || shared.arriving > 0) return;
      if (all.get(owner) === shared) all.delete(owner);
      await parts.giveBack();
    },
  });
  shared.handles.add(grant);
  return grant;
}
