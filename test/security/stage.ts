/**
 * A server with access control on and one user of each kind, and its two doors: gRPC and JSON.
 *
 *   root                 everything
 *   ann                  may read and write [a, c)
 *   eve                  known, and allowed nothing
 */
import { text, utf8 } from '../../src/base/bytes.ts';
import type { EmbeddedEngine } from '../../src/engine/embedded.ts';
import { openMemoryEngine } from '../../src/engine/memory/engine.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { type RunningServer, type ServeOptions, serve } from '../../src/server/serve.ts';
import type { Method } from '../../src/wire/messages/descriptor.ts';
import { toJson } from '../../src/wire/messages/json.ts';
import { AuthService, KVService } from '../../src/wire/messages/services.ts';
import { attachedStatus } from '../../src/wire/messages/status.ts';
import { GrpcClient, type GrpcClientOptions } from '../../src/wire/net/grpc-client.ts';

export const PASSWORDS = {
  root: 'root-secret-4711',
  ann: 'ann-secret-4712',
  eve: 'eve-secret-4713',
};
export type UserName = keyof typeof PASSWORDS;
const PERMITTED = { permType: 2, key: utf8('a'), rangeEnd: utf8('c') };

export interface Denial {
  readonly code: number;
  readonly message: string;
}

export class Stage implements AsyncDisposable {
  readonly engine: EmbeddedEngine;
  readonly server: RunningServer;
  readonly logged: string[];
  readonly #clients: GrpcClient[] = [];
  readonly #tokens = new Map<string, string>();

  static async open(options: Partial<ServeOptions> = {}): Promise<Stage> {
    const engine = await openMemoryEngine();
    const logged: string[] = [];
    const log: ServeOptions['log'] = (...line) => void logged.push(JSON.stringify(line));
    const server = await serve({ engine, listen: { port: 0 }, log, ...options });
    return new Stage(engine, server, logged);
  }

  private constructor(engine: EmbeddedEngine, server: RunningServer, logged: string[]) {
    this.engine = engine;
    this.server = server;
    this.logged = logged;
  }

  client(options: Partial<GrpcClientOptions> = {}): GrpcClient {
    const client = new GrpcClient({ port: this.server.port, deadlineMs: 10_000, ...options });
    this.#clients.push(client);
    return client;
  }

  /** Makes the users and turns access control on. */
  async guarded(options: Partial<GrpcClientOptions> = {}): Promise<this> {
    const client = this.client(options);
    for (const [name, password] of Object.entries(PASSWORDS)) {
      await client.unary(AuthService.UserAdd, { name, password });
    }
    await client.unary(AuthService.UserGrantRole, { user: 'root', role: 'root' });
    await client.unary(AuthService.RoleAdd, { name: 'ab' });
    await client.unary(AuthService.RoleGrantPermission, { name: 'ab', perm: PERMITTED });
    await client.unary(AuthService.UserGrantRole, { user: 'ann', role: 'ab' });
    await client.unary(AuthService.AuthEnable, {});
    return this;
  }

  async token(name: UserName): Promise<string> {
    const request = { name, password: PASSWORDS[name] };
    const { token } = await this.client().unary(AuthService.Authenticate, request);
    this.#tokens.set(name, token);
    return token;
  }

  async as(name: UserName, options: Partial<GrpcClientOptions> = {}): Promise<GrpcClient> {
    return this.client({ ...options, metadata: [['token', await this.token(name)]] });
  }

  async values(key: string, end?: string): Promise<string[]> {
    const root = await this.as('root');
    const range = { key: utf8(key), ...(end === undefined ? {} : { rangeEnd: utf8(end) }) };
    const { kvs } = await root.unary(KVService.Range, range);
    return kvs.map(({ value }) => text(value));
  }

  json(path: string, body: string, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.server.port}${path}`, { method: 'POST', body, headers });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await this.server.close();
    await this.engine.close();
  }
}

/** How a call over gRPC was refused; undefined: it was not. */
export async function refusedCall(
  client: GrpcClient,
  method: Method,
  request: object,
): Promise<Denial | undefined> {
  try {
    if (method.kind === 'unary') {
      await client.unary(method, request as never);
      return undefined;
    }
    const call = client.stream(method, { deadlineMs: 5_000 });
    call.send(request);
    for await (const answer of call.responses()) {
      call.cancel();
      const { canceled, cancelReason } = answer as { canceled?: boolean; cancelReason?: string };
      return canceled ? { code: -1, message: cancelReason ?? '' } : undefined;
    }
    return undefined;
  } catch (error) {
    if (!HoldfastError.is(error)) throw error;
    const status = attachedStatus(error);
    if (!status) throw error;
    return { code: status.code, message: status.message };
  }
}

/** The same through the JSON gateway. */
export async function refusedJson(
  stage: Stage,
  path: string,
  method: Method,
  request: object,
  token?: string,
): Promise<Denial | undefined> {
  const headers = token === undefined ? {} : { authorization: token };
  const response = await stage.json(path, toJson(method.request, request), headers);
  // A stream's first line tells.
  const reader = response.body!.getReader();
  const first = text((await reader.read()).value ?? new Uint8Array(0));
  await reader.cancel();
  const answer = JSON.parse(first.split('\n')[0]!) as {
    code?: number;
    message?: string;
    error?: string | { message: string; grpc_code: number };
    result?: { canceled?: boolean; cancel_reason?: string };
  };
  if (answer.result?.canceled) return { code: -1, message: answer.result.cancel_reason ?? '' };
  if (response.status !== 200) return { code: answer.code ?? 0, message: answer.message ?? '' };
  if (typeof answer.error === 'object') return { code: answer.error.grpc_code, ...answer.error };
  return undefined;
}
