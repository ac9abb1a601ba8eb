/** What the contract asks and a real etcd cannot show, with the reason; listed in the docs too. */

/** The shape that the conformance suite reads; engines do not import it. */
export type EtcdSkip = { readonly reason: string } & (
  | { readonly needs: readonly ('clock' | 'quota' | 'operator')[] }
  | { readonly cases: readonly string[] }
);

export const CONFORMANCE_SKIPS: readonly EtcdSkip[] = [
  { reason: 'time is the cluster’s own clock, which no test moves', needs: ['clock'] },
  { reason: 'space is the quota of the cluster, set when it starts', needs: ['quota'] },
  {
    reason: 'etcd before 3.4.25 and 3.5.8 promises progress to watches that still catch up',
    cases: ['progress asked for while catching up waits until everything before was told'],
  },
  {
    reason:
      'etcd before 3.4.34 and 3.5.18 loses the delete at the compact revision (etcd-io/etcd#18089)',
    cases: ['a watch from the compact revision itself tells a delete of that revision'],
  },
  { reason: 'operators have etcdctl', needs: ['operator'] },
];

/** The same for the recipe suite: case → reason. */
export const RECIPE_SKIPS: Readonly<Record<string, string>> = {};
