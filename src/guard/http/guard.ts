/**
 * The decision on one HTTP request, whatever framework it came through.
 *
 * A guarded request carries `Holdfast-Token`: decimal, or sealed. Refusals are problem documents
 * (RFC 9457): 409 stale, 428 no token, 400 not a token, 403 no valid seal, 503 the older one has
 * not ended yet. Which requests are guarded, and as which resource, is a list of rules; what no
 * rule names is guarded when it may change something, so that a forgotten route is not a hole.
 */
import { HoldfastError } from '../../model/errors.ts';
import { parseToken } from '../../model/token.ts';
import type { Rule } from '../fence.ts';
import type { MarkStore } from '../marks.ts';
import { type Admission, Turnstile, type TurnstileOptions } from './turnstile.ts';

export const TOKEN_HEADER = 'holdfast-token';
export const HOLDER_HEADER = 'holdfast-holder';

/** Methods that by definition change nothing. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

const ANY = /^/;

export interface HttpRoute {
  /** Absent: every method. Upper case. */
  readonly methods?: readonly string[];
  /** Absent: every path. Matched against the decoded, normalised path without the query. */
  readonly path?: RegExp;
  /** The resource, or how it follows from the match; `false`: not guarded. */
  readonly resource: string | ((match: RegExpExecArray) => string) | false;
  readonly rule?: Rule;
}

export interface HttpGuardOptions extends TurnstileOptions {
  /** The first that matches decides. */
  readonly routes?: readonly HttpRoute[];
  /** The resource of unsafe requests that no route names. */
  readonly resource?: string;
}

/** What the decision needs of a request. */
export interface HttpRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  header(name: string): string | undefined;
}

export interface Problem {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export class HttpGuard {
  readonly #turnstile: Turnstile;
  readonly #routes: readonly HttpRoute[];
  readonly #resource: string;

  constructor(marks: MarkStore, options: HttpGuardOptions = {}) {
    this.#turnstile = new Turnstile('http', marks, options);
    this.#routes = options.routes ?? [];
    this.#resource = options.resource ?? 'http';
  }

  /**
   * An admission to `leave()` when the request has ended; undefined when it is not guarded. Throws
   * what `problemOf` turns into an answer.
   */
  async enter(request: HttpRequest): Promise<Admission | undefined> {
    const place = this.#place(request);
    if (!place) return undefined;
    const token = request.header(TOKEN_HEADER);
    if (token === undefined || token === '') throw new TokenMissing(place.resource);
    const holder = request.header(HOLDER_HEADER);
    return await this.#turnstile.enter({ token, holder }, place.resource, place.rule);
  }

  #place({ method, target }: HttpRequest): { resource: string; rule: Rule } | undefined {
    const path = normalPath(target);
    const verb = method.toUpperCase();
    for (const { methods, path: pattern, resource, rule = 'reign' } of this.#routes) {
      if (methods && !methods.includes(verb)) continue;
      const match = (pattern ? withoutState(pattern) : ANY).exec(path);
      if (!match) continue;
      if (resource === false) return undefined;
      return { resource: typeof resource === 'string' ? resource : resource(match), rule };
    }
    return SAFE.has(verb) ? undefined : { resource: this.#resource, rule: 'reign' };
  }
}

/** A `g` or `y` flag would make the answer depend on the request before. */
function withoutState(pattern: RegExp): RegExp {
  if (!pattern.global && !pattern.sticky) return pattern;
  return new RegExp(pattern, pattern.flags.replace(/[gy]/g, ''));
}

class TokenMissing extends Error {
  readonly resource: string;
  constructor(resource: string) {
    super(`this request needs a fencing token for ${JSON.stringify(resource)}`);
    this.resource = resource;
  }
}

/** The answer to a request that was not let in. */
export function problemOf(error: unknown): Problem {
  if (error instanceof TokenMissing) {
    const detail = `${error.message}: acquire the lock and send its token as Holdfast-Token`;
    return problem(428, 'token-missing', 'A fencing token is required', { detail });
  }
  const refusal = HoldfastError.from(error);
  const { code, message: detail } = refusal;
  switch (code) {
    case 'stale': {
      const { token, mark } = refusal.details;
      const numbers = { token: token?.toString(), mark: mark?.toString() };
      return problem(409, code, 'A newer holder has acted', { detail, ...numbers });
    }
    case 'token-invalid':
      return problem(400, code, 'This is not a fencing token', { detail });
    case 'token-unsealed':
      return problem(403, code, 'The token is not sealed for this', { detail });
    case 'conflict':
      return problem(503, code, 'An older operation has not ended', { detail }, '1');
    case 'invalid-argument':
      return problem(400, code, 'The request cannot be guarded', { detail });
    default:
      return problem(503, code, 'The guard cannot decide now', { detail }, '1');
  }
}

/** For clients: the refusal as the error it was at the guard; undefined for any other answer. */
export function refusalOf(status: number, body: string): HoldfastError | undefined {
  if (status !== 409) return undefined;
  try {
    const { type, detail, token, mark } = JSON.parse(body) as Record<string, unknown>;
    if (type !== 'urn:holdfast:stale') return undefined;
    const numbers = { token: parseToken(token), mark: parseToken(mark) };
    return new HoldfastError('stale', String(detail), numbers);
  } catch {
    return undefined;
  }
}

function problem(
  status: number,
  code: string,
  title: string,
  more: Readonly<Record<string, string | undefined>>,
  retryAfter?: string,
): Problem {
  return {
    status,
    headers: {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      ...(retryAfter ? { 'retry-after': retryAfter } : {}),
    },
    body: JSON.stringify({ type: `urn:holdfast:${code}`, title, status, ...more }),
  };
}

/**
 * One spelling for each path, so that `/a//b`, `/a/./b` and `/%61/b` are one resource. A path that
 * cannot be decoded is matched as it is.
 */
export function normalPath(target: string): string {
  const raw = target.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, '').split(/[?#]/, 1)[0] || '/';
  let decoded = raw;
  try {
    decoded = decodeURIComponent(raw);
  } catch {
    // Not ours to repair.
  }
  const segments: string[] = [];
  for (const segment of decoded.split(/[/\\]+/)) {
    if (segment === '' || segment === '.') continue;
    if (segment === '..') segments.pop();
    else segments.push(segment);
  }
  return `/${segments.join('/')}`;
}
