/** What a server answers to plain HTTP: health, version, metrics, and the gateway's paths. */

import type { Metrics } from '../base/metrics.ts';
import { HoldfastError } from '../model/errors.ts';
import { SEAL_KEYS_PATH } from '../model/seal-keys.ts';
import type { Backend } from './backend.ts';
import { type Exchange, respond } from './exchange.ts';
import type { StoreFigures } from './figures/store.ts';
import type { Gateway } from './gateway.ts';
import { sealKeysPage } from './sealing/page.ts';
import type { Readiness } from './services/health.ts';
import { EMULATED_VERSION } from './services/maintenance.ts';

export interface EndpointOptions {
  readonly backend: Backend;
  readonly gateway: Gateway;
  readonly metrics: Metrics;
  readonly storeFigures: StoreFigures;
  readonly readiness: Readiness;
  /** Names under which this server may be called; a browser led here by another name is refused. */
  readonly hosts: () => ReadonlySet<string>;
  /** Whether names are checked: on loopback, where any web page can reach us. */
  readonly checkHost: boolean;
}

type Page = (exchange: Exchange, query: URLSearchParams) => Promise<void> | void;

export class Endpoints {
  readonly #options: EndpointOptions;
  readonly #pages: ReadonlyMap<string, Page>;

  constructor(options: EndpointOptions) {
    this.#options = options;
    const health: Page = (exchange, query) => this.#health(exchange, query);
    this.#pages = new Map<string, Page>([
      ['/health', health],
      ['/healthz', health],
      ['/livez', (exchange) => this.#check(exchange, false)],
      ['/readyz', (exchange) => this.#check(exchange, true)],
      ['/version', version],
      ['/metrics', (exchange) => this.#metrics(exchange)],
      [SEAL_KEYS_PATH, sealKeysPage(options.backend.sealKeys)],
    ]);
  }

  async handle(exchange: Exchange): Promise<void> {
    // As it came: a path that has to be tidied up first is not one of ours.
    const [path = '', query = ''] = exchange.target.split('?', 2);
    if (!this.#welcome(exchange)) {
      respond(exchange, 403, 'text/plain', 'this server is not called by that name\n');
      return;
    }
    const method = this.#options.gateway.find(path);
    if (method) return this.#options.gateway.serve(method, exchange);
    const page = this.#pages.get(path);
    if (!page) {
      respond(exchange, 404, 'text/plain', '404 page not found\n');
      return;
    }
    if (exchange.method !== 'GET' && exchange.method !== 'HEAD') {
      exchange.head(405, { allow: 'GET', 'content-type': 'text/plain' });
      exchange.end('Method Not Allowed\n');
      return;
    }
    await page(exchange, new URLSearchParams(query));
  }

  /**
   * Against web pages: one that is led here under a name of its own (DNS rebinding), and one of
   * another origin, which a browser lets send what it may not read.
   */
  #welcome(exchange: Exchange): boolean {
    const { host } = exchange;
    const origin = exchange.header('origin');
    if (origin !== undefined && hostOf(origin) !== host) return false;
    if (!this.#options.checkHost || host === undefined) return true;
    return this.#options.hosts().has(nameOf(`http://${host}`));
  }

  async #health(exchange: Exchange, query: URLSearchParams): Promise<void> {
    const excluded = new Set(query.getAll('exclude').map((name) => name.toUpperCase()));
    const reason = await this.#illness(excluded);
    const body = JSON.stringify({ health: String(reason === ''), reason });
    respond(exchange, reason === '' ? 200 : 503, 'application/json', body);
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
  async #check(exchange: Exchange, ready: boolean): Promise<void> {
    const { backend, readiness } = this.#options;
    try {
      await backend.engine.status();
      if (!ready || readiness.ready) respond(exchange, 200, 'text/plain', 'ok\n');
      else respond(exchange, 503, 'text/plain', 'shutting down\n');
    } catch (error) {
      respond(exchange, 503, 'text/plain', `${HoldfastError.from(error).message}\n`);
    }
  }

  async #metrics(exchange: Exchange): Promise<void> {
    await this.#options.storeFigures.look();
    const type = 'text/plain; version=0.0.4; charset=utf-8';
    respond(exchange, 200, type, this.#options.metrics.render());
  }
}

const HEALTH_KEY = new TextEncoder().encode('health');

function version(exchange: Exchange): void {
  const cluster = EMULATED_VERSION.replace(/\d+$/, '0');
  const body = JSON.stringify({ etcdserver: EMULATED_VERSION, etcdcluster: cluster });
  respond(exchange, 200, 'application/json', body);
}

function nameOf(url: string): string {
  return URL.canParse(url) ? new URL(url).hostname : '';
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : '';
}
