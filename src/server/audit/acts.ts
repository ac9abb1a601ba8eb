/**
 * Which methods are acts of administration, and what an entry says of each. Only what is named here
 * reaches an entry: no password, no token, no value.
 *
 *   along    the act is a transaction, and its service puts the entry into it
 *   around   it is none: an entry before, one after
 *   denials  it changes nothing; who was refused it is told all the same
 */
import { type Bytes, printable } from '../../base/bytes.ts';
import type { MessageType, Method } from '../../wire/messages/descriptor.ts';
import { AlarmAction, AlarmType } from '../../wire/messages/gen/rpc.ts';
import {
  AuditService,
  AuthorityService,
  AuthService,
  ClusterService,
  KVService,
  LeaseService,
  MaintenanceService,
} from '../../wire/messages/services.ts';

export type ActKind = 'along' | 'around' | 'denials';

export interface Act {
  readonly kind: ActKind;
  readonly act: string;
  readonly subject: string;
  /** It may be what a full store needs. */
  readonly remedy: boolean;
}

/** Undefined: this request is none. */
type Describe = (request: never) => Act | undefined;
type RequestOf<M> = M extends { readonly request: MessageType<infer T, infer _Init> } ? T : never;

const ACTS = new Map<string, Describe>();

function acts<M extends Method>(
  method: M,
  kind: ActKind,
  name: string | ((request: RequestOf<M>) => string | undefined),
  { subject = () => '', remedy = false }: Details<RequestOf<M>> = {},
): void {
  const describe = (request: RequestOf<M>): Act | undefined => {
    const act = typeof name === 'string' ? name : name(request);
    return act === undefined ? undefined : { kind, act, subject: subject(request), remedy };
  };
  ACTS.set(method.path, describe as Describe);
}

interface Details<T> {
  readonly subject?: (request: T) => string;
  readonly remedy?: boolean;
}

acts(AuthService.AuthEnable, 'along', 'auth.enable');
acts(AuthService.AuthDisable, 'along', 'auth.disable');
acts(AuthService.UserAdd, 'along', 'user.add', { subject: ({ name }) => name });
acts(AuthService.UserDelete, 'along', 'user.delete', { subject: ({ name }) => name });
acts(AuthService.UserChangePassword, 'along', 'user.password', { subject: ({ name }) => name });
acts(AuthService.UserGrantRole, 'along', 'user.grant-role', {
  subject: ({ user, role }) => `${user} ${role}`,
});
acts(AuthService.UserRevokeRole, 'along', 'user.revoke-role', {
  subject: ({ name, role }) => `${name} ${role}`,
});
acts(AuthService.RoleAdd, 'along', 'role.add', { subject: ({ name }) => name });
acts(AuthService.RoleDelete, 'along', 'role.delete', { subject: ({ role }) => role });
acts(AuthService.RoleGrantPermission, 'along', 'role.grant-permission', {
  subject: ({ name, perm }) =>
    `${name} ${perm ? `${RIGHTS[perm.permType] ?? perm.permType} ${rangeOf(perm.key, perm.rangeEnd)}` : ''}`,
});
acts(AuthService.RoleRevokePermission, 'along', 'role.revoke-permission', {
  subject: ({ role, key, rangeEnd }) => `${role} ${rangeOf(key, rangeEnd)}`,
});
acts(AuthService.AuthStatus, 'denials', 'auth.status');
acts(AuthService.UserList, 'denials', 'user.list');
acts(AuthService.RoleList, 'denials', 'role.list');

acts(AuthorityService.LiftEra, 'around', ({ era }) => (era === 0 ? undefined : 'era.lift'), {
  subject: ({ era }) => `at least ${era}`,
});
acts(AuthorityService.RotateSealKeys, 'along', ({ discard }) =>
  discard ? 'seal-keys.discard' : 'seal-keys.rotate',
);

acts(KVService.Compact, 'around', 'store.compact', {
  subject: ({ revision }) => `before revision ${revision}`,
  remedy: true,
});
acts(MaintenanceService.Alarm, 'around', ({ action }) => ALARM_ACTS[action], {
  subject: ({ alarm }) => ALARM_NAMES[alarm] ?? String(alarm),
  remedy: true,
});
acts(MaintenanceService.Defragment, 'around', 'store.defragment', { remedy: true });
acts(MaintenanceService.Snapshot, 'around', 'store.snapshot', { remedy: true });
acts(MaintenanceService.Hash, 'denials', 'store.hash');
acts(MaintenanceService.HashKV, 'denials', 'store.hash');
acts(MaintenanceService.MoveLeader, 'denials', 'member.move-leader');
acts(MaintenanceService.Downgrade, 'denials', 'store.downgrade');
acts(ClusterService.MemberAdd, 'denials', 'member.add');
acts(ClusterService.MemberRemove, 'denials', 'member.remove');
acts(ClusterService.MemberUpdate, 'denials', 'member.update');
acts(ClusterService.MemberPromote, 'denials', 'member.promote');
acts(LeaseService.LeaseLeases, 'denials', 'lease.list');
acts(AuditService.List, 'denials', 'audit.list');
acts(AuditService.Head, 'denials', 'audit.head');
// Its own entry is the one that stands for those removed.
acts(AuditService.Prune, 'denials', 'audit.prune');

const RIGHTS: readonly string[] = ['read', 'write', 'readwrite'];

const ALARM_ACTS: Readonly<Record<number, string>> = {
  [AlarmAction.ACTIVATE]: 'alarm.raise',
  [AlarmAction.DEACTIVATE]: 'alarm.end',
};

const ALARM_NAMES: Readonly<Record<number, string>> = {
  [AlarmType.NONE]: 'all',
  [AlarmType.NOSPACE]: 'no-space',
  [AlarmType.CORRUPT]: 'corrupt',
};

function rangeOf(key: Bytes, end: Bytes): string {
  return end.length === 0 ? printable(key) : `[${printable(key)}, ${printable(end)})`;
}

/** Whether requests of this method may be acts. */
export function mayBeAct({ path }: Method): boolean {
  return ACTS.has(path);
}

export function actOf({ path }: Method, request: object): Act | undefined {
  return ACTS.get(path)?.(request as never);
}
