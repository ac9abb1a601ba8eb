/**
 * Keeps caches from going back in time. The agent stands between the caches and their origin and
 * owns a *floor* for each content: the newest token whose purge was applied. A purge passes only if
 * it is not older than the floor, and a refill only if the content is not.
 *
 * Purges overtake each other, and a refill that was fetched before a purge can arrive after it.
 * So a purge first raises the floor durably, then cuts off refills under way that are older, then
 * empties the caches, and then fetches through each cache to see that nothing older is served: what
 * a cache had received but not yet stored when it was emptied shows there, and it is emptied again.
 *
 * The origin says in `Holdfast-Token` under which token a content was written. Once a content has a
 * floor, an answer without it is passed on but not stored.
 */
import {
  Agent,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { sleep } from '../../base/clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import { parseToken, type Token } from '../../model/token.ts';
import { Gate, type GuardOptions, type Presented } from '../gate.ts';
import { HOLDER_HEADER, normalPath, problemOf, TOKEN_HEADER } from '../http/guard.ts';
import { answer, nodeRequest } from '../http/middleware.ts';
import type { MarkStore } from '../marks.ts';

/** A cache in front of the agent. */
export interface CacheTarget {
  /** Where it serves: `http://127.0.0.1:6081`. */
  readonly url: string;
  /** Forgets the content of a path. */
  purge(path: string): Promise<void>;
}

export interface CacheAgentOptions extends GuardOptions {
  /** What the caches are filled from: `http://127.0.0.1:8080`. */
  readonly origin: string;
  readonly caches: readonly CacheTarget[];
  /** Attempts to empty a cache before the purge is reported as failed. */
  readonly attemptsMax?: number;
}

const ATTEMPTS_MAX = 50;
const AGAIN_MS = 10;
const TIMEOUT_MS = 10_000;

/** An answer on its way from the origin to a cache. */
interface Refill {
  /** Undefined until the origin has said. */
  version: Token | undefined;
  cut(): void;
}

export class CacheAgent {
  readonly #gate: Gate;
  readonly #marks: MarkStore;
  readonly #options: CacheAgentOptions;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #floors = new Map<string, Token>();
  readonly #refills = new Map<string, Set<Refill>>();

  constructor(marks: MarkStore, options: CacheAgentOptions) {
    this.#gate = new Gate('cache', options);
    this.#marks = marks;
    this.#options = options;
  }

  /**
   * Resolves when no cache serves anything older for this path. A purge of the floor's own token
   * may be repeated. Errors: `stale`; `unavailable` when a cache does not let go: the floor stands,
   * repeat the purge.
   */
  async purge(presented: Presented, target: string): Promise<void> {
    const path = normalPath(target);
    await this.#gate.ready(presented);
    const claim = this.#gate.read(presented, path);
    const { admitted, mark } = await this.#marks.raise(claim, 'reign', this.#gate.clock.wall());
    if (!admitted) throw this.#gate.refused(claim, mark);
    this.#raise(path, claim.token);
    for (const refill of this.#refills.get(path) ?? []) {
      if (refill.version !== undefined && refill.version < claim.token) refill.cut();
    }
    await Promise.all(this.#options.caches.map((cache) => this.#empty(cache, path, claim.token)));
    this.#gate.admitted(claim);
  }

  async floor(target: string): Promise<Token> {
    return (await this.#marks.mark(normalPath(target))).token;
  }

  /** The listener that caches use as their backend. */
  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    const path = normalPath(request.url ?? '/');
    try {
      this.#raise(path, (await this.#marks.mark(path)).token);
    } catch (error) {
      answer(request, response, problemOf(error));
      return;
    }
    this.#refill(path, request, response);
  }

  /** The listener for purges: `POST /path` or `PURGE /path`, with `Holdfast-Token`. */
  async control(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { target, header } = nodeRequest(request);
    try {
      const token = header(TOKEN_HEADER) ?? '';
      await this.purge({ token, holder: header(HOLDER_HEADER) }, target);
      answer(request, response, { status: 204, headers: {}, body: '' });
    } catch (error) {
      answer(request, response, problemOf(error));
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  #raise(path: string, token: Token): void {
    if (token > (this.#floors.get(path) ?? 0n)) this.#floors.set(path, token);
  }

  #refill(path: string, request: IncomingMessage, response: ServerResponse): void {
    const headers = { ...request.headers, connection: 'keep-alive' };
    const out = httpRequest(new URL(request.url ?? '/', this.#options.origin), {
      method: request.method,
      agent: this.#agent,
      headers,
    });
    const refill: Refill = {
      version: undefined,
      cut: () => {
        out.destroy();
        response.destroy();
      },
    };
    const refills = this.#refills.get(path) ?? new Set();
    this.#refills.set(path, refills.add(refill));
    response.once('close', () => {
      refills.delete(refill);
      if (refills.size === 0 && this.#refills.get(path) === refills) this.#refills.delete(path);
      out.destroy();
    });
    out.once('error', () => {
      if (response.headersSent) response.destroy();
      else if (!response.destroyed) answer(request, response, badGateway());
    });
    out.once('response', (incoming) => {
      incoming.once('error', () => response.destroy());
      const headers: Record<string, string | string[] | undefined> = { ...incoming.headers };
      delete headers.connection;
      delete headers['keep-alive'];
      delete headers['transfer-encoding'];
      const floor = this.#floors.get(path) ?? 0n;
      refill.version = versionOf(incoming);
      // Another spelling, or a query, is another entry of the cache, which no purge would reach.
      const spelled = request.url === encodeURI(path);
      if (!spelled || (refill.version === undefined && floor > 0n)) {
        headers['cache-control'] = 'no-store';
      }
      if (refill.version !== undefined && refill.version < floor) {
        incoming.destroy();
        answer(request, response, tooOld(refill.version, floor));
        return;
      }
      response.writeHead(incoming.statusCode ?? 502, headers);
      incoming.pipe(response);
    });
    request.pipe(out);
  }

  async #empty(cache: CacheTarget, path: string, token: Token): Promise<void> {
    const { clock } = this.#gate;
    const { attemptsMax = ATTEMPTS_MAX } = this.#options;
    let reason: unknown;
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      try {
        await cache.purge(path);
        const served = await servedVersion(cache, path);
        if (served === undefined || served >= token) return;
        reason = `it still serves ${served}`;
      } catch (error) {
        reason = error;
      }
      await sleep(clock, AGAIN_MS);
    }
    throw new HoldfastError('unavailable', `${cache.url} did not let go of ${path}: ${reason}`, {
      outcome: 'unknown',
      cause: reason,
    });
  }
}

async function servedVersion(cache: CacheTarget, path: string): Promise<Token | undefined> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const response = await fetch(new URL(encodeURI(path), cache.url), { signal });
  await response.arrayBuffer();
  const version = response.headers.get(TOKEN_HEADER);
  return version === null ? undefined : parseToken(version);
}

function versionOf({ headers }: IncomingMessage): Token | undefined {
  const version = headers[TOKEN_HEADER];
  if (typeof version !== 'string') return undefined;
  try {
    return parseToken(version);
  } catch {
    return undefined;
  }
}

function badGateway(): { status: number; headers: object; body: string } {
  const headers = { 'cache-control': 'no-store' };
  return { status: 502, headers, body: 'the origin did not answer\n' };
}

/** The origin (a lagging replica of it) is behind the floor: better no answer than an old one. */
function tooOld(version: Token, floor: Token): { status: number; headers: object; body: string } {
  const headers = { 'cache-control': 'no-store', 'retry-after': '1' };
  return { status: 503, headers, body: `the origin is at ${version}, the floor is ${floor}\n` };
}
