/**
 * Users and roles as a value, and every change of them as a function from one state to the next.
 * The rules and the texts of the refusals are etcd's. Pure: hashing and storing happen outside.
 */
import { interval, isEmptyInterval, type KeyRange } from '../../model/range.ts';
import { type Permission, sameRange } from './permission.ts';
import { refusal } from './refusal.ts';

export const ROOT = 'root';

export interface User {
  readonly name: string;
  /** Absent for users that prove themselves by certificate only. */
  readonly passwordHash?: string | undefined;
  readonly roles: readonly string[];
}

/** The tenant a user belongs to, by its name: `acme/ann` is of `acme`; without a slash, of none. */
export function tenantOf(name: string): string | undefined {
  const slash = name.indexOf('/');
  return slash > 0 ? name.slice(0, slash) : undefined;
}

export interface Role {
  readonly name: string;
  readonly permissions: readonly Permission[];
}

export interface AccessState {
  readonly enabled: boolean;
  /** Raised by every change; a token of an older one is refused. */
  readonly revision: number;
  readonly users: ReadonlyMap<string, User>;
  readonly roles: ReadonlyMap<string, Role>;
}

export const NO_ACCESS_CONTROL: AccessState = {
  enabled: false,
  revision: 1,
  users: new Map(),
  roles: new Map(),
};

type Change = Partial<Omit<AccessState, 'revision'>>;

function next(state: AccessState, change: Change): AccessState {
  return { ...state, ...change, revision: state.revision + 1 };
}

export function enable(state: AccessState): AccessState {
  if (state.enabled) return state;
  const root = state.users.get(ROOT);
  if (!root) throw refusal('root user does not exist');
  if (!root.roles.includes(ROOT)) throw refusal('root user does not have root role');
  return next(state, { enabled: true });
}

export function disable(state: AccessState): AccessState {
  return state.enabled ? next(state, { enabled: false }) : state;
}

export function addUser(state: AccessState, user: Omit<User, 'roles'>): AccessState {
  if (user.name === '') throw refusal('user name is empty');
  if (state.users.has(user.name)) throw refusal('user name already exists');
  return withUser(state, { ...user, roles: [] });
}

export function deleteUser(state: AccessState, name: string): AccessState {
  if (state.enabled && name === ROOT) throw refusal('invalid auth management');
  findUser(state, name);
  const users = new Map(state.users);
  users.delete(name);
  return next(state, { users });
}

export function changePassword(
  state: AccessState,
  name: string,
  passwordHash: string,
): AccessState {
  const user = findUser(state, name);
  return withUser(state, { ...user, passwordHash });
}

export function grantRole(state: AccessState, name: string, role: string): AccessState {
  const user = findUser(state, name);
  if (role !== ROOT && !state.roles.has(role)) throw refusal('role name not found');
  if (user.roles.includes(role)) return state;
  return withUser(state, { ...user, roles: [...user.roles, role].sort() });
}

export function revokeRole(state: AccessState, name: string, role: string): AccessState {
  if (state.enabled && name === ROOT && role === ROOT) throw refusal('invalid auth management');
  const user = findUser(state, name);
  if (!user.roles.includes(role)) throw refusal('role is not granted to the user');
  return withUser(state, { ...user, roles: user.roles.filter((granted) => granted !== role) });
}

export function addRole(state: AccessState, name: string): AccessState {
  if (name === '') throw refusal('role name is empty');
  if (state.roles.has(name)) throw refusal('role name already exists');
  return withRole(state, { name, permissions: [] });
}

export function deleteRole(state: AccessState, name: string): AccessState {
  if (state.enabled && name === ROOT) throw refusal('invalid auth management');
  findRole(state, name);
  const roles = new Map(state.roles);
  roles.delete(name);
  const users = new Map(state.users);
  for (const user of state.users.values()) {
    if (!user.roles.includes(name)) continue;
    users.set(user.name, { ...user, roles: user.roles.filter((role) => role !== name) });
  }
  return next(state, { roles, users });
}

export function grantPermission(
  state: AccessState,
  name: string,
  permission: Permission | undefined,
): AccessState {
  if (!permission) throw refusal('permission not given');
  if (permission.key.length === 0 || isEmptyInterval(interval(permission))) {
    throw refusal('invalid auth management');
  }
  const role = findRole(state, name);
  const others = role.permissions.filter((granted) => !sameRange(granted, permission));
  return withRole(state, { name, permissions: [...others, permission] });
}

export function revokePermission(state: AccessState, name: string, range: KeyRange): AccessState {
  const role = findRole(state, name);
  const left = role.permissions.filter((granted) => !sameRange(granted, range));
  if (left.length === role.permissions.length) {
    throw refusal('permission is not granted to the role');
  }
  return withRole(state, { name, permissions: left });
}

export function findUser(state: AccessState, name: string): User {
  const user = state.users.get(name);
  if (!user) throw refusal('user name not found');
  return user;
}

export function findRole(state: AccessState, name: string): Role {
  const role = state.roles.get(name);
  if (!role) throw refusal('role name not found');
  return role;
}

/** All that the roles of a user permit, merged. */
export function permissionsOf(state: AccessState, user: User): readonly Permission[] {
  return user.roles.flatMap((role) => state.roles.get(role)?.permissions ?? []);
}

function withUser(state: AccessState, user: User): AccessState {
  return next(state, { users: new Map(state.users).set(user.name, user) });
}

function withRole(state: AccessState, role: Role): AccessState {
  return next(state, { roles: new Map(state.roles).set(role.name, role) });
}
