/** What the conformance suite asks and this engine does not give, as data; the docs list the same. */
export interface NeedSkip {
  readonly reason: string;
  readonly needs: readonly ('clock' | 'quota')[];
}

export const CONFORMANCE_SKIPS: readonly NeedSkip[] = [
  { reason: 'time is the database clock, which no test moves', needs: ['clock'] },
  { reason: 'the administrator of the database bounds its space', needs: ['quota'] },
];
