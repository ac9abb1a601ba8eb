/**
 * Guards keys of a Redis: one script call compares, raises the mark and runs the commands, and
 * Redis runs nothing else meanwhile.
 *
 * Lua numbers are doubles, so tokens stay decimal strings: the longer is greater, and of equal
 * length the lexically greater. The mark is raised before the commands, so it is never behind them.
 */
import { createHash } from 'node:crypto';
import { toHex } from '../base/bytes.ts';
import { systemRandom } from '../base/system.ts';
import { HoldfastError } from '../model/errors.ts';
import { formatToken, parseToken, type Token } from '../model/token.ts';
import type { Rule } from './fence.ts';
import { Gate, type GuardOptions, type Presented } from './gate.ts';

/** KEYS: mark, then the user's. ARGV: token, rule, holder, wall ms, then each command as count, words. */
const SCRIPT = `
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end
local token, rule = ARGV[1], ARGV[2]
local mark = redis.call('HGET', KEYS[1], 't')
if mark and (less(token, mark) or (rule == 'once' and token == mark)) then
  return {0, mark, redis.call('HGET', KEYS[1], 'h') or '', redis.call('HGET', KEYS[1], 'a') or ''}
end
if mark ~= token then
  redis.call('HSET', KEYS[1], 't', token, 'h', ARGV[3], 'a', ARGV[4])
  redis.call('PERSIST', KEYS[1])
end
local answers, at = {1}, 5
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local words = {}
  for i = 1, count do words[i] = ARGV[at + i] end
  answers[#answers + 1] = redis.call(unpack(words))
  at = at + count + 1
end
return answers
`;
const SHA = createHash('sha1').update(SCRIPT).digest('hex');

export type RedisWord = string | Buffer;

/** `ioredis`. */
interface IoRedis {
  call(command: string, ...words: RedisWord[]): Promise<unknown>;
}
/** `redis` (node-redis). */
interface NodeRedis {
  sendCommand(words: RedisWord[]): Promise<unknown>;
}
export type RedisClient = IoRedis | NodeRedis | ((words: RedisWord[]) => Promise<unknown>);

export interface RedisGuardOptions extends GuardOptions {
  /**
   * Where a resource's mark is kept. In a cluster the guarded keys must share its slot; by default
   * the resource is the hash tag: `{orders/42}:state` is together with its mark.
   */
  readonly markKey?: (resource: string) => string;
  /** After each effect, wait until so many replicas have it; `unknown` when they do not in time. */
  readonly replicas?: { readonly count: number; readonly timeoutMs: number };
}

export interface RedisEffect {
  readonly resource: string;
  readonly rule?: Rule;
  /** Run in order, atomically, if the token passes: `[['SET', '{orders/42}:state', 'paid']]`. */
  readonly commands: readonly (readonly RedisWord[])[];
  /** Every key the commands touch; a cluster needs them, and Redis asks for them. */
  readonly keys: readonly RedisWord[];
}

type Send = (words: RedisWord[]) => Promise<unknown>;

export class RedisGuard {
  readonly #gate: Gate;
  readonly #send: Send;
  readonly #options: RedisGuardOptions;

  private constructor(send: Send, options: RedisGuardOptions) {
    this.#gate = new Gate('redis', options);
    this.#send = send;
    this.#options = options;
  }

  /** Errors: `guard-unfit` when scripts are not atomic or exact here, or marks may be evicted. */
  static async open(client: RedisClient, options: RedisGuardOptions = {}): Promise<RedisGuard> {
    const send = sender(client);
    await probeEviction(send);
    await probeScript(send, options.markKey ?? defaultMarkKey);
    return new RedisGuard(send, options);
  }

  /** The commands' answers, in order. Errors: `stale`, `token-invalid`, `token-unsealed`. */
  async run(presented: Presented, effect: RedisEffect): Promise<readonly unknown[]> {
    const { resource, rule = 'reign' } = effect;
    await this.#gate.ready(presented);
    const claim = this.#gate.read(presented, resource);
    const words = [
      ...[formatToken(claim.token), rule, claim.holder ?? '', String(this.#gate.clock.wall())],
      ...effect.commands.flatMap((command) => [String(command.length), ...command]),
    ];
    const answer = await evaluate(this.#send, [this.#markKey(resource), ...effect.keys], words);
    if (Number(answer[0]) === 0) {
      const [, mark, holder, at] = answer.map(String);
      throw this.#gate.refused(claim, {
        token: parseToken(mark),
        holder: holder || undefined,
        atMs: at ? Number(at) : undefined,
      });
    }
    this.#gate.admitted(claim);
    await this.#replicated();
    return answer.slice(1);
  }

  async mark(resource: string): Promise<Token> {
    const mark = await this.#send(['HGET', this.#markKey(resource), 't']);
    return mark === null ? 0n : parseToken(String(mark));
  }

  #markKey(resource: string): string {
    return (this.#options.markKey ?? defaultMarkKey)(resource);
  }

  async #replicated(): Promise<void> {
    const { replicas } = this.#options;
    if (!replicas) return;
    const { count, timeoutMs } = replicas;
    const have = Number(await this.#send(['WAIT', String(count), String(timeoutMs)]));
    if (have >= count) return;
    throw new HoldfastError(
      'unavailable',
      `the effect is on ${have} of ${count} replicas after ${timeoutMs} ms; a failover may lose it`,
      { outcome: 'unknown' },
    );
  }
}

function defaultMarkKey(resource: string): string {
  return `holdfast:mark:{${resource}}`;
}

function sender(client: RedisClient): Send {
  if (typeof client === 'function') return client;
  // ioredis has a `sendCommand` too, with another meaning, so its `call` is looked for first.
  const { call, sendCommand } = client as Partial<IoRedis & NodeRedis>;
  if (call) return ([command, ...words]) => call.call(client, String(command), ...words);
  if (sendCommand) return (words) => sendCommand.call(client, words);
  throw new HoldfastError('invalid-argument', 'this is neither ioredis, node-redis nor a function');
}

async function evaluate(
  send: Send,
  keys: readonly RedisWord[],
  words: readonly RedisWord[],
): Promise<readonly unknown[]> {
  const rest = [String(keys.length), ...keys, ...words];
  try {
    return (await send(['EVALSHA', SHA, ...rest])) as unknown[];
  } catch (error) {
    if (!/NOSCRIPT/.test(String(error))) throw effectError(error);
  }
  try {
    return (await send(['EVAL', SCRIPT, ...rest])) as unknown[];
  } catch (error) {
    throw effectError(error);
  }
}

/** Redis does not roll back: when a command fails, those before it have happened. */
function effectError(cause: unknown): HoldfastError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new HoldfastError('unavailable', `Redis: ${message}`, { cause, outcome: 'unknown' });
}

async function probeEviction(send: Send): Promise<void> {
  const memory = String(await send(['INFO', 'memory']));
  const policy = /maxmemory_policy:(\S+)/.exec(memory)?.[1] ?? 'noeviction';
  const bounded = !/^maxmemory:0\s*$/m.test(memory);
  if (bounded && policy.startsWith('allkeys')) {
    throw unfit(`maxmemory-policy ${policy} may evict the marks; use noeviction or volatile-*`);
  }
}

async function probeScript(send: Send, markKey: (resource: string) => string): Promise<void> {
  const key = markKey(`holdfast-probe-${toHex(systemRandom.bytes(8))}`);
  const attempt = async (token: bigint, rule: Rule): Promise<boolean> =>
    Number((await evaluate(send, [key], [String(token), rule, '', '0']))[0]) === 1;
  try {
    const above = 2n ** 53n + 1n;
    if (!(await attempt(above, 'reign'))) throw unfit('it refused the first token');
    if (await attempt(above - 1n, 'reign')) throw unfit('it admitted an older token');
    if (await attempt(above, 'once')) throw unfit('it admitted a token twice');
    if (await attempt(9n, 'reign')) throw unfit('it compares tokens as text');
    if (!(await attempt(above, 'reign'))) throw unfit('it forgot the mark');
  } finally {
    await send(['DEL', key]);
  }
}

function unfit(why: string): HoldfastError {
  return new HoldfastError('guard-unfit', `this Redis cannot be guarded: ${why}`);
}
