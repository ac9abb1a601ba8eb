/** What a server answers to plain HTTP: health, version, metrics, and the gateway's paths. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { HoldfastError } from '../model/errors.ts';
import { SEAL_KEYS_PATH } from '../model/seal-keys.ts';
import type { Backend } from './backend.ts';
import type { Gateway } from './gateway.ts';
import type { Metrics } from './metrics.ts';
import { sealKeysPage } from './sealing/page.ts';
import type { Readiness } from './services/health.ts';
import { EMULATED_VERSION } from './services/maintenance.ts';

export interface EndpointOptions {
  readonly backend: Backend;
  readonly gateway: Gateway;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  /** Names under which this server may be called; a browser led here by another name is refused. */
  readonly hosts: () => ReadonlySet<string>;
  /** Whether names are checked: on loopback, where any web page can reach us. */
  readonly checkHost: boolean;
}

type Page = (
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
) => Promise<void> | void;

export class Endpoints {
  readonly #options: EndpointOptions;
  readonly #pages: ReadonlyMap<string, Page>;

  constructor(options: EndpointOptions) {
    this.#options = options;
    const health: Page = (_request, response, query) => this.#health(response, query);
    this.#pages = new Map<string, Page>([
      ['/health', health],
      ['/healthz', health],
      ['/livez', (_request, response) => this.#check(response, false)],
      ['/readyz', (_request, response) => this.#check(response, true)],
      ['/version', (_request, response) => version(response)],
      ['/metrics', (_request, response) => this.#metrics(response)],
      [SEAL_KEYS_PATH, sealKeysPage(options.backend.sealKeys)],
    ]);
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // As it came: a path that has to be tidied up first is not one of ours.
    const [path = '', query = ''] = (request.url ?? '/').split('?', 2);
    if (!this.#welcome(request)) {
      respond(response, 403, 'text/plain', 'this server is not called by that name\n');
      return;
    }
    const method = this.#options.gateway.find(path);
    if (method) return this.#options.gateway.serve(method, request, response);
    const page = this.#pages.get(path);
    if (!page) {
      respond(response, 404, 'text/plain', '404 page not found\n');
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET');
      respond(response, 405, 'text/plain', 'Method Not Allowed\n');
      return;
    }
    await page(request, response, new URLSearchParams(query));
  }

  /**
   * Against web pages: one that is led here under a name of its own (DNS rebinding), and one of
   * another origin, which a browser lets send what it may not read.
   */
  #welcome(request: IncomingMessage): boolean {
    const { host, origin } = request.headers;
    if (origin !== undefined && hostOf(origin) !== host) return false;
    if (!this.#options.checkHost || host === undefined) return true;
    return this.#options.hosts().has(nameOf(`http://${host}`));
  }

  async #health(response: ServerResponse, query: URLSearchParams): Promise<void> {
    const excluded = new Set(query.getAll('exclude').map((name) => name.toUpperCase()));
    const reason = await this.#illness(excluded);
    const body = JSON.stringify({ health: String(reason === ''), reason });
    respond(response, reason === '' ? 200 : 503, 'application/json', body);
  }

  /** Why the server is not well, in etcd's words; empty: it is. */
  async #illness(excluded: ReadonlySet<string>): Promise<string> {
    const { backend, readiness } = this.#options;
    if (!readiness.ready) return 'server is shutting down';
    try {
      const { alarms } = await backend.engine.status();
      if (alarms.includes('no-space') && !excluded.has('NOSPACE')) return 'ALARM NOSPACE';
      if (alarms.includes('corrupt') && !excluded.has('CORRUPT')) return 'ALARM CORRUPT';
      await backend.engine.range({ key: HEALTH_KEY });
      return '';
    } catch (error) {
      return `RANGE ERROR:${HoldfastError.from(error).message}`;
    }
  }

  /** Alive: the process answers and the engine has not failed. Ready: it also takes requests. */
  async #check(response: ServerResponse, ready: boolean): Promise<void> {
    const { backend, readiness } = this.#options;
    try {
      await backend.engine.status();
      if (!ready || readiness.ready) respond(response, 200, 'text/plain', 'ok\n');
      else respond(response, 503, 'text/plain', 'shutting down\n');
    } catch (error) {
      respond(response, 503, 'text/plain', `${HoldfastError.from(error).message}\n`);
    }
  }

  #metrics(response: ServerResponse): void {
    const type = 'text/plain; version=0.0.4; charset=utf-8';
    respond(response, 200, type, this.#options.metrics.render());
  }
}

const HEALTH_KEY = new TextEncoder().encode('health');

function version(response: ServerResponse): void {
  const cluster = EMULATED_VERSION.replace(/\d+$/, '0');
  const body = JSON.stringify({ etcdserver: EMULATED_VERSION, etcdcluster: cluster });
  respond(response, 200, 'application/json', body);
}

function respond(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type });
  response.end(body);
}

function nameOf(url: string): string {
  return URL.canParse(url) ? new URL(url).hostname : '';
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : '';
}
