/**
 * The guard in front of handlers: node:http, Express, Fastify and Fetch (Hono). Types are
 * structural, so no framework is needed to compile or to run this.
 *
 * A request is inside from its admission until its handler is done. For callback frameworks that
 * is when the response was ended, not when the client went away: a handler whose client has gone
 * may still be writing to the database.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type HttpGuard, type HttpRequest, problemOf } from './guard.ts';
import type { Admission } from './turnstile.ts';

const admissions = new WeakMap<object, Admission>();

/** The admission of a request (node, Express, Fastify's `request.raw`, Fetch), inside a handler. */
export function admissionOf(request: object): Admission | undefined {
  return admissions.get(request);
}

export function nodeRequest(request: IncomingMessage): HttpRequest {
  return {
    method: request.method ?? 'GET',
    // Express rewrites `url` below a mount point and keeps the original here.
    target: (request as { originalUrl?: string }).originalUrl ?? request.url ?? '/',
    header: (name) => {
      const value = request.headers[name];
      return Array.isArray(value) ? value.join(',') : value;
    },
  };
}

type Listener = (request: IncomingMessage, response: ServerResponse) => unknown;

/** Wraps a listener of node:http. */
export function guardListener(guard: HttpGuard, listener: Listener): Listener {
  return async (request, response) => {
    const entered = await enter(guard, request, response);
    if (entered) await listener(request, response);
  };
}

/** `app.use(expressGuard(guard))` */
export function expressGuard(
  guard: HttpGuard,
): (request: IncomingMessage, response: ServerResponse, next: (error?: unknown) => void) => void {
  return (request, response, next) => {
    enter(guard, request, response).then((entered) => {
      if (entered) next();
    }, next);
  };
}

interface FastifyLike {
  addHook(
    name: 'onRequest',
    hook: (
      request: { readonly raw: IncomingMessage },
      reply: { readonly raw: ServerResponse; hijack(): unknown },
    ) => Promise<void>,
  ): unknown;
}

/** `fastifyGuard(app, guard)`, before the routes it is to cover. */
export function fastifyGuard(app: FastifyLike, guard: HttpGuard): void {
  app.addHook('onRequest', async ({ raw }, reply) => {
    if (!(await enter(guard, raw, reply.raw))) reply.hijack();
  });
}

type FetchHandler<Rest extends unknown[]> = (
  request: Request,
  ...rest: Rest
) => Response | Promise<Response>;

/** Wraps a Fetch handler: `guardFetch(guard, app.fetch)` for Hono and every other of its kind. */
export function guardFetch<Rest extends unknown[]>(
  guard: HttpGuard,
  handler: FetchHandler<Rest>,
): (request: Request, ...rest: Rest) => Promise<Response> {
  return async (request, ...rest) => {
    let admission: Admission | undefined;
    try {
      admission = await guard.enter({
        method: request.method,
        target: request.url,
        header: (name) => request.headers.get(name) ?? undefined,
      });
    } catch (error) {
      const problem = problemOf(error);
      return new Response(problem.body, { status: problem.status, headers: problem.headers });
    }
    if (!admission) return await handler(request, ...rest);
    admissions.set(request, admission);
    try {
      return untilSent(await handler(request, ...rest), admission);
    } catch (error) {
      admission.leave();
      throw error;
    }
  };
}

/** A response with a stream is done when the stream is: its source may still be acting. */
function untilSent(response: Response, admission: Admission): Response {
  if (!response.body) {
    admission.leave();
    return response;
  }
  const reader = response.body.getReader();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) return controller.enqueue(value);
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      admission.leave();
    },
    async cancel(reason) {
      await reader.cancel(reason).finally(() => admission.leave());
    },
  });
  const { status, statusText, headers } = response;
  return new Response(body, { status, statusText, headers });
}

/** Resolves to false when it has answered itself. */
async function enter(
  guard: HttpGuard,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<boolean> {
  let admission: Admission | undefined;
  try {
    admission = await guard.enter(nodeRequest(request));
  } catch (error) {
    answer(request, response, problemOf(error));
    return false;
  }
  if (!admission) return true;
  admissions.set(request, admission);
  leaveAtEnd(response, admission);
  return true;
}

export function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: { status: number; headers: object; body: string },
): void {
  // What was not read stays on the connection: it is closed after the answer instead.
  const close = request.complete ? {} : { connection: 'close' };
  const length = { 'content-length': String(Buffer.byteLength(body)) };
  response.writeHead(status, { ...headers, ...length, ...close });
  response.end(body);
  request.resume();
}

function leaveAtEnd(response: ServerResponse, admission: Admission): void {
  const end = response.end;
  const leave = (): void => admission.leave();
  let ended = false;
  response.once('close', () => {
    if (ended) leave();
  });
  response.end = function endOnce(this: ServerResponse, ...args: unknown[]) {
    ended = true;
    // `close` follows when the answer is out; when the client has gone it has come already.
    if (response.destroyed || response.closed) leave();
    return Reflect.apply(end, this, args) as ServerResponse;
  } as ServerResponse['end'];
}
