/**
 * Whether a log is whole: entry after entry goes in, the first thing that is wrong comes out.
 *
 *   each entry   has the hash of what it says, the next number, and the hash of the one before
 *   the first    is entry 1, or a later one says that what was before it has been pruned
 *   the era      rises only in an entry that says so; the revision of one era never falls
 *   the end      is where an anchor says, if one is given: a tail that was cut off leaves no other trace
 */
import { toHex } from '../base/bytes.ts';
import { type AuditEntry, canonical, ERA_ACT, NO_HASH, PRUNE_ACT, type Sha256 } from './audit.ts';

/** A place in the chain and its hash, kept where whoever can change the log cannot. */
export interface Anchor {
  readonly seq: number;
  readonly hash: string;
}

export interface AuditFault {
  /** The first bad entry: its number, or the one that should stand there. */
  readonly seq: number;
  readonly why: string;
}

/** Where another era begins: after a restore, the original may have gone on without this copy. */
export interface Fork {
  readonly seq: number;
  readonly fromEra: number;
  readonly toEra: number;
}

export interface Verdict {
  readonly fault: AuditFault | undefined;
  readonly entries: number;
  /** First entry that is there; 0: none is. */
  readonly first: number;
  readonly head: Anchor;
  readonly forks: readonly Fork[];
}

/** What a prune entry says: the first entry that was left, and the hash of the one before it. */
export function pruned(before: number, hash: string): { subject: string; reason: string } {
  return { subject: `before ${before}`, reason: `sha-256 ${hash}` };
}

function prunedBy({ act, outcome, subject, reason }: AuditEntry): Anchor | undefined {
  if (act !== PRUNE_ACT || outcome !== 'done') return undefined;
  const before = /^before (\d{1,15})$/.exec(subject)?.[1];
  const hash = /^sha-256 ([0-9a-f]{64})$/.exec(reason)?.[1];
  return before && hash ? { seq: Number(before) - 1, hash } : undefined;
}

const OTHER =
  'it is not the one expected: the log was rewritten, or is that of a store restored earlier';

export class ChainCheck {
  readonly #sha256: Sha256;
  readonly #expected: readonly Anchor[];
  readonly #met = new Set<Anchor>();
  readonly #forks: Fork[] = [];
  #fault: AuditFault | undefined;
  #first: AuditEntry | undefined;
  #last: AuditEntry | undefined;
  #beginning: 'told' | 'open' = 'open';

  /** `expected`: places that the log must pass with these hashes. */
  constructor(sha256: Sha256, expected: readonly Anchor[] = []) {
    this.#sha256 = sha256;
    this.#expected = expected;
  }

  /** The first thing that was wrong; once there is one, nothing more is looked at. */
  get fault(): AuditFault | undefined {
    return this.#fault;
  }

  add(entry: AuditEntry): void {
    if (this.#fault) return;
    const why = this.#wrong(entry);
    if (why !== undefined) {
      this.fail(why, entry.seq);
      return;
    }
    this.#first ??= entry;
    this.#last = entry;
    const removed = prunedBy(entry);
    const { seq, previous } = this.#first;
    if (removed && removed.seq === seq - 1 && removed.hash === previous) this.#beginning = 'told';
  }

  /** For what could not even be read. */
  fail(why: string, seq: number = (this.#last?.seq ?? 0) + 1): void {
    this.#fault ??= { seq, why };
  }

  end(): Verdict {
    this.#judgeBeginning();
    for (const anchor of this.#expected) if (!this.#fault) this.#judgeAnchor(anchor);
    const { seq = 0, hash = NO_HASH } = this.#last ?? {};
    return {
      fault: this.#fault,
      entries: this.#last ? seq - this.#first!.seq + 1 : 0,
      first: this.#first?.seq ?? 0,
      head: { seq, hash },
      forks: this.#forks,
    };
  }

  #wrong(entry: AuditEntry): string | undefined {
    const place = this.#wrongPlace(entry);
    if (place !== undefined) return place;
    if (toHex(this.#sha256(canonical(entry))) !== entry.hash) {
      return 'its hash is not that of what it says: it was altered';
    }
    return this.#wrongEra(entry) ?? this.#wrongAnchor(entry);
  }

  #wrongPlace({ seq, previous }: AuditEntry): string | undefined {
    const last = this.#last;
    if (!last) {
      if (seq < 1) return 'entries are counted from 1';
      return seq === 1 && previous !== NO_HASH ? 'the first entry follows none' : undefined;
    }
    if (seq <= last.seq) return `it comes after entry ${last.seq}: it stands there twice or late`;
    if (seq > last.seq + 1) return `entry ${last.seq + 1} is missing before it`;
    return previous === last.hash
      ? undefined
      : `it does not follow entry ${last.seq} as it is here`;
  }

  #wrongEra({ seq, era, act, revision }: AuditEntry): string | undefined {
    const last = this.#last;
    if (!last) return undefined;
    if (era < last.era) return `its era ${era} is before era ${last.era}`;
    if (era > last.era) {
      if (act !== ERA_ACT) return `era ${era} begins without an entry that says so`;
      this.#forks.push({ seq, fromEra: last.era, toEra: era });
    } else if (revision < last.revision) {
      return `revision ${revision} is before ${last.revision} in one era: the store was set back`;
    }
    return undefined;
  }

  #wrongAnchor({ seq, hash }: AuditEntry): string | undefined {
    for (const anchor of this.#expected) {
      if (anchor.seq !== seq) continue;
      if (anchor.hash !== hash) return OTHER;
      this.#met.add(anchor);
    }
    return undefined;
  }

  #judgeBeginning(): void {
    const first = this.#first;
    if (this.#fault || !first || first.seq === 1 || this.#beginning === 'told') return;
    this.#fault = { seq: first.seq - 1, why: 'it is missing, and nothing says that it was pruned' };
  }

  #judgeAnchor(anchor: Anchor): void {
    if (this.#met.has(anchor)) return;
    const first = this.#first?.seq ?? 1;
    const { seq, hash } = anchor;
    if (seq === first - 1) {
      if (hash !== (this.#first?.previous ?? NO_HASH)) this.#fault = { seq, why: OTHER };
    } else if (seq < first) {
      this.#fault = { seq, why: 'it was pruned; whether it was the one expected cannot be told' };
    } else {
      const last = this.#last?.seq ?? 0;
      this.#fault = { seq: last + 1, why: `the log ends at ${last}, before the ${seq} expected` };
    }
  }
}
