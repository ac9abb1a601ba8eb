/**
 * What `etcdctl` is asked to do, in order. `$LEASE`, `$MEMBER` and `$ENDPOINT` stand for what the
 * side itself has said before.
 */
export interface Step {
  readonly args: readonly string[];
  readonly input?: string;
  /** The command runs on; these run meanwhile, then it is interrupted. */
  readonly during?: readonly (readonly string[])[];
  /** Reads a value out of the answer for later steps. */
  readonly learn?: { readonly name: string; readonly from: RegExp };
  /** Takes long: only in the long form. */
  readonly long?: true;
}

const line = (text: string, more: Omit<Step, 'args'> = {}): Step => ({
  args: text.split(' '),
  ...more,
});
const LEASE = { name: 'LEASE', from: /lease ([0-9a-f]+) granted/ };
const ROOT = '--user root:root-pw';

const KEYS: readonly Step[] = [
  line('put a 1'),
  line('put a 2 --prev-kv'),
  line('put b 3'),
  line('put a/1 x'),
  line('put a/2 y'),
  line('put c 5 -w json'),
  line('put nothing --ignore-value'),
  line('put a --ignore-value'),
  line('put a 4 --ignore-lease'),
  line('put d 6 --lease 7fffffff'),
  line('get a'),
  line('get a -w json'),
  line('get a -w fields'),
  line('get missing'),
  line('get a b'),
  line('get a/ --prefix'),
  line('get a/ --prefix --keys-only'),
  line('get a/ --prefix --count-only -w fields'),
  line('get --prefix= --from-key a'),
  line('get a --from-key --limit 2'),
  line('get a --from-key --order DESCEND --sort-by MODIFY'),
  line('get a --from-key --order ASCEND --sort-by VALUE --print-value-only'),
  line('get a --rev 2'),
  line('get a --rev 9999'),
  line('get a --consistency s'),
  line('get a z --prefix'),
  line('get'),
  line('del b --prev-kv'),
  line('del b'),
  line('del a/ --prefix'),
  line('del c --from-key --prev-kv'),
  line('del'),
];

const TRANSACTIONS: readonly Step[] = [
  line('txn', { input: 'value("a") = "4"\n\nput a 7\nget a\n\nput a 8\n\n' }),
  line('txn', { input: 'mod("a") < "1"\n\nput a 9\n\nget a\ndel a\n\n' }),
  line('txn', { input: 'create("new") = "0"\nversion("new") = "0"\n\nput new 1\n\n\n' }),
  line('txn -w json', { input: 'version("new") > "0"\n\nget new\n\n\n' }),
  line('txn', { input: '\nput twice 1\nput twice 2\n\n\n' }),
];

const WATCHES: readonly Step[] = [
  line('watch w', {
    during: [
      ['put', 'w', '1'],
      ['put', 'w', '2'],
      ['del', 'w'],
    ],
  }),
  line('watch w --prefix --prev-kv', {
    during: [
      ['put', 'w1', '1'],
      ['put', 'w1', '2'],
    ],
  }),
  line('watch w --rev 1', { during: [['put', 'w', '3']] }),
  line('watch w x -w json', { during: [['put', 'w5', '1']] }),
  line('watch w --progress-notify', { during: [['put', 'w', '4']] }),
  line('watch -i', { input: 'watch w\n', during: [['put', 'w', '5']] }),
  line('watch z a', { during: [] }),
];

const LEASES: readonly Step[] = [
  line('lease grant 300', { learn: LEASE }),
  line('lease timetolive $LEASE'),
  line('put leased 1 --lease $LEASE'),
  line('lease timetolive $LEASE --keys'),
  line('lease timetolive $LEASE -w json'),
  line('lease keep-alive $LEASE --once'),
  line('lease keep-alive $LEASE', { during: [] }),
  line('lease keep-alive 123'),
  line('lease list'),
  // After the list: how soon a lease this short is gone differs by the load.
  line('lease grant 1'),
  line('lease revoke $LEASE'),
  line('lease revoke $LEASE'),
  line('lease timetolive $LEASE'),
  line('get leased'),
  line('lease grant 99999999999'),
  line('lease grant -- -5'),
  line('lease grant none'),
];

const LOCKS: readonly Step[] = [
  line('lock chair echo held'),
  line('lock chair --ttl 5 false'),
  line('lock chair', { during: [['get', 'chair', '--prefix', '--count-only', '-w', 'fields']] }),
  line('get chair --prefix --keys-only'),
  line('elect seat me', { during: [['get', 'seat', '--prefix', '--print-value-only']] }),
  line('elect -l seat', { during: [] }),
  line('elect seat'),
];

const CLUSTER: readonly Step[] = [
  line('member list', { learn: { name: 'MEMBER', from: /^([0-9a-f]+),/ } }),
  line('member list -w json'),
  line('member list -w table'),
  line('member update $MEMBER --peer-urls http://127.0.0.1:1'),
  line('member update 123 --peer-urls http://127.0.0.1:1'),
  line('member promote $MEMBER'),
  line('member promote 123'),
  line('member remove 123'),
  line('member remove $MEMBER'),
  line('move-leader 123'),
  line('endpoint health'),
  line('endpoint health --cluster'),
  line('endpoint status'),
  line('endpoint status -w json'),
  line('endpoint status -w table'),
  line('endpoint hashkv'),
  line('alarm list'),
  line('alarm disarm'),
  line('defrag'),
  line('compaction 5'),
  line('compaction 5'),
  line('compaction 99999'),
  line('compaction 8 --physical'),
  line('get a --rev 3'),
  line('watch a --rev 3', { during: [] }),
  line('snapshot save $FILE'),
  line('snapshot status $FILE'),
  line('make-mirror --prefix mir/ --dest-prefix copy/ $HOST', {
    during: [['put', 'mir/1', 'x']],
  }),
  line('get copy/ --prefix'),
  line('check perf --load s', { long: true }),
  line('check datascale --load s', { long: true }),
  line('version'),
];

const ACCESS: readonly Step[] = [
  line('auth enable'),
  line('user add root:root-pw'),
  line('user add root:root-pw'),
  line('user add ann:ann-pw'),
  line('user add cert --no-password'),
  line('user add :nobody'),
  line('user get ann'),
  line('user list'),
  line('user grant-role ann none'),
  line('role add reader'),
  line('role add reader'),
  line('role grant-permission reader read a b'),
  line('role grant-permission reader readwrite r/ --prefix'),
  line('role grant-permission reader write z --from-key'),
  line('role add odd'),
  line('role grant-permission odd read y x'),
  line('role get reader'),
  line('role list'),
  line('role get none'),
  line('user grant-role ann reader'),
  line('user grant-role root root'),
  line('user get ann --detail'),
  line('auth enable'),
  line('get a'),
  line('get a --user ann:ann-pw'),
  line('get a --user ann:wrong'),
  line('get a --user nobody:wrong'),
  line('get a --user cert:x'),
  line('get b --user ann:ann-pw'),
  line('get a b --user ann:ann-pw'),
  line('get a --from-key --user ann:ann-pw'),
  line('put a 1 --user ann:ann-pw'),
  line('put r/1 1 --user ann:ann-pw'),
  line('put zz 1 --user ann:ann-pw'),
  line('put zz 1 --prev-kv --user ann:ann-pw'),
  line('del r/ --prefix --user ann:ann-pw'),
  line('watch b --user ann:ann-pw', { during: [] }),
  line('user list --user ann:ann-pw'),
  line('user get ann --user ann:ann-pw'),
  line('user get root --user ann:ann-pw'),
  line('role get reader --user ann:ann-pw'),
  line('member list --user ann:ann-pw'),
  line('endpoint status --user ann:ann-pw'),
  line('defrag --user ann:ann-pw'),
  line('compaction 9 --user ann:ann-pw'),
  line('lease grant 100 --user ann:ann-pw'),
  line('lease list --user ann:ann-pw'),
  line(`user passwd ann --interactive=false ${ROOT}`, { input: 'new-pw\n' }),
  line('get a --user ann:new-pw'),
  line(`role revoke-permission reader a b ${ROOT}`),
  line(`role revoke-permission reader a b ${ROOT}`),
  line('get a --user ann:new-pw'),
  line(`user revoke-role ann reader ${ROOT}`),
  line(`user revoke-role ann reader ${ROOT}`),
  line(`role delete reader ${ROOT}`),
  line(`user delete ann ${ROOT}`),
  line(`user delete root ${ROOT}`),
  line(`user revoke-role root root ${ROOT}`),
  line(`auth disable ${ROOT}`),
  line('auth disable'),
  line('user delete cert'),
  line('user list'),
];

export const STEPS: readonly Step[] = [
  ...KEYS,
  ...TRANSACTIONS,
  ...WATCHES,
  ...LEASES,
  ...LOCKS,
  ...CLUSTER,
  ...ACCESS,
  // Last: a real etcd of one member waits for the second from then on.
  line('member add other --peer-urls http://127.0.0.1:2'),
];
