/** What a transaction takes along, so that neither is there without the other. */
import type { AuditAct } from '../../model/audit.ts';
import type { Compare, Operation } from '../../model/transaction.ts';

export interface Along {
  readonly compare: readonly Compare[];
  readonly success: readonly Operation[];
}

/** Made anew for each attempt: the log may have grown. `more` is known only then. */
export type MakeAlong = (more?: Partial<AuditAct>) => Promise<Along>;

export const NOTHING_ALONG: MakeAlong = async () => ({ compare: [], success: [] });
