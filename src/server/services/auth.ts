/** Users, roles and logging in. The rules are in `access/users.ts`; here they meet the wire. */
import { HoldfastError } from '../../model/errors.ts';
import type { Permission as WirePermission } from '../../wire/messages/gen/auth.ts';
import type { AuthUserAddRequest } from '../../wire/messages/gen/rpc.ts';
import { AuthService } from '../../wire/messages/services.ts';
import type { Attempt } from '../access/login-throttle.ts';
import {
  hashPassword,
  PASSWORD_LENGTH_MAX,
  PASSWORD_LENGTH_MIN,
  passwordMatches,
} from '../access/passwords.ts';
import type { Permission, PermissionType } from '../access/permission.ts';
import { refusal } from '../access/refusal.ts';
import * as users from '../access/users.ts';
import { type Act, actOf } from '../audit/acts.ts';
import type { MakeAlong } from '../audit/along.ts';
import type { Backend, Call } from '../backend.ts';
import { type Handler, unary } from './service.ts';

/** One of the few texts of etcd without its prefix. */
const NO_PASSWORD_USER = 'auth: authentication failed, password was given for no password user';

const TYPES: readonly PermissionType[] = ['read', 'write', 'readwrite'];

type Transition = (state: users.AccessState) => users.AccessState;

export function authService(backend: Backend): Handler[] {
  const header = async (): Promise<{ header: ReturnType<Backend['header']> }> => ({
    header: backend.header((await backend.engine.status()).header),
  });
  /** An operator's change: stored and, where it takes something away, in force before the answer. */
  const change = async (
    call: Call,
    act: Act | undefined,
    transition: Transition,
  ): ReturnType<typeof header> => {
    backend.admin(call);
    const store = (along?: MakeAlong): Promise<unknown> => backend.access.change(transition, along);
    await (act ? backend.audit.alongside(call, act, store) : store());
    return header();
  };
  return [
    unary(AuthService.AuthEnable, (request, call) =>
      change(call, actOf(AuthService.AuthEnable, request), users.enable),
    ),
    unary(AuthService.AuthDisable, (request, call) =>
      change(call, actOf(AuthService.AuthDisable, request), users.disable),
    ),
    unary(AuthService.AuthStatus, async (_request, call) => {
      backend.admin(call);
      const { enabled, revision } = backend.access.state;
      return { ...(await header()), enabled, authRevision: revision };
    }),
    unary(AuthService.Authenticate, async ({ name, password }, { address, signal }) => {
      const token = await logIn(backend, { name, password, address, signal }).catch(
        (error: unknown) => {
          refusedLogin(backend, { name, address }, error);
          throw error;
        },
      );
      return { ...(await header()), token };
    }),
    unary(AuthService.UserAdd, async (request, call) => {
      backend.admin(call);
      const user = await newUser(backend, request);
      const act = actOf(AuthService.UserAdd, request);
      return change(call, act, (state) => users.addUser(state, user));
    }),
    unary(AuthService.UserGet, async ({ name }, call) => {
      backend.gate.mayShowUser(call.identity, name);
      const { roles } = users.findUser(backend.access.state, name);
      return { ...(await header()), roles: [...roles] };
    }),
    unary(AuthService.UserList, async (_request, call) => {
      backend.admin(call);
      return { ...(await header()), users: [...backend.access.state.users.keys()].sort() };
    }),
    unary(AuthService.UserDelete, async (request, call) => {
      const { name } = request;
      const act = actOf(AuthService.UserDelete, request);
      const answer = await change(call, act, (state) => users.deleteUser(state, name));
      backend.options.tokens.forget(name);
      return answer;
    }),
    unary(AuthService.UserChangePassword, async (request, call) => {
      backend.admin(call);
      const { name, password } = request;
      const hash = await hashPassword(checked(backend, password));
      const act = actOf(AuthService.UserChangePassword, request);
      const answer = await change(call, act, (state) => users.changePassword(state, name, hash));
      backend.options.tokens.forget(name);
      return answer;
    }),
    unary(AuthService.UserGrantRole, (request, call) =>
      change(call, actOf(AuthService.UserGrantRole, request), (state) =>
        users.grantRole(state, request.user, request.role),
      ),
    ),
    unary(AuthService.UserRevokeRole, (request, call) =>
      change(call, actOf(AuthService.UserRevokeRole, request), (state) =>
        users.revokeRole(state, request.name, request.role),
      ),
    ),
    unary(AuthService.RoleAdd, (request, call) =>
      change(call, actOf(AuthService.RoleAdd, request), (state) =>
        users.addRole(state, request.name),
      ),
    ),
    unary(AuthService.RoleGet, async ({ role }, call) => {
      backend.gate.mayShowRole(call.identity, role);
      const { permissions } = users.findRole(backend.access.state, role);
      return { ...(await header()), perm: permissions.map(permissionToWire) };
    }),
    unary(AuthService.RoleList, async (_request, call) => {
      backend.admin(call);
      return { ...(await header()), roles: [...backend.access.state.roles.keys()].sort() };
    }),
    unary(AuthService.RoleDelete, (request, call) =>
      change(call, actOf(AuthService.RoleDelete, request), (state) =>
        users.deleteRole(state, request.role),
      ),
    ),
    unary(AuthService.RoleGrantPermission, (request, call) => {
      const { name, perm } = request;
      return change(call, actOf(AuthService.RoleGrantPermission, request), (state) =>
        users.grantPermission(state, name, perm && permissionToModel(perm)),
      );
    }),
    unary(AuthService.RoleRevokePermission, (request, call) => {
      const { role, key, rangeEnd } = request;
      return change(call, actOf(AuthService.RoleRevokePermission, request), (state) =>
        users.revokePermission(state, role, { key, end: rangeEnd }),
      );
    }),
  ];
}

async function logIn(
  backend: Backend,
  { password, ...attempt }: Attempt & { readonly password: string },
): Promise<string> {
  const { name } = attempt;
  const { state } = backend.access;
  if (!state.enabled) throw refusal('authentication is not enabled');
  const user = state.users.get(name);
  if (user && user.passwordHash === undefined) {
    throw new HoldfastError('unauthenticated', NO_PASSWORD_USER);
  }
  const matches = (): Promise<boolean> => passwordMatches(password, user?.passwordHash);
  if (!(await backend.logins.attempt(attempt, matches))) {
    throw refusal('authentication failed, invalid user ID or password');
  }
  return backend.options.tokens.issue({ user: name, revision: state.revision });
}

/** Of a name that nobody has nothing is kept: it may be a password in the wrong place. */
function refusedLogin(
  backend: Backend,
  { name, address }: Pick<Attempt, 'name' | 'address'>,
  error: unknown,
): void {
  const { enabled, users: known } = backend.access.state;
  const { code, message } = HoldfastError.from(error);
  if (!enabled || code === 'cancelled' || code === 'deadline-exceeded') return;
  backend.audit.loginRefused({ address }, known.has(name) ? name : undefined, message);
}

async function newUser(
  backend: Backend,
  request: AuthUserAddRequest,
): Promise<Omit<users.User, 'roles'>> {
  const { name, password, options } = request;
  if (options?.noPassword) return { name };
  return { name, passwordHash: await hashPassword(checked(backend, password)) };
}

function checked(backend: Backend, password: string): string {
  const least = backend.options.passwordLengthMin ?? PASSWORD_LENGTH_MIN;
  if (password.length >= least && password.length <= PASSWORD_LENGTH_MAX) return password;
  throw new HoldfastError(
    'invalid-argument',
    `a password has ${least} to ${PASSWORD_LENGTH_MAX} characters`,
  );
}

function permissionToModel({ permType, key, rangeEnd }: WirePermission): Permission {
  const type = TYPES[permType];
  if (type === undefined) throw refusal('invalid auth management');
  return rangeEnd.length === 0 ? { type, key } : { type, key, end: rangeEnd };
}

function permissionToWire({ type, key, end }: Permission): {
  permType: number;
  key: Uint8Array;
  rangeEnd: Uint8Array | undefined;
} {
  return { permType: TYPES.indexOf(type), key, rangeEnd: end };
}
