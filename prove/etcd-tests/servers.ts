/**
 * Starts and stops servers for the clusters of etcd's tests, which ask over HTTP: `/start` with what a
 * member was configured with answers the path of a socket, `/stop` ends what was started there.
 */
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TlsOptions } from 'node:tls';
import { systemClock } from '../../src/base/system.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import type { EmbeddedOptions } from '../../src/engine/options.ts';
import { opaqueTokens, signedTokens, type Tokens } from '../../src/server/access/tokens.ts';
import { serve } from '../../src/server/serve.ts';

interface Wanted {
  readonly directory: string;
  readonly name: string;
  readonly advertise: string;
  /** `simple`, or `jwt,pub-key=…,priv-key=…,sign-method=RS256,ttl=1s`. */
  readonly authToken: string;
  /** Zeros in the rest mean etcd's default. */
  readonly tokenTtlSeconds: number;
  readonly quotaBytes: number;
  readonly requestBytes: number;
  readonly operations: number;
  readonly progressMs: number;
  readonly tls?: {
    readonly cert: string;
    readonly key: string;
    readonly ca?: string;
    /** Go's names. */
    readonly ciphers: readonly string[];
  };
}

export class Servers {
  readonly #http: Server;
  readonly #fixtures: string;
  readonly #bend: EmbeddedOptions;
  /** By directory: how to stop it. */
  readonly #running = new Map<string, () => Promise<void>>();

  private constructor(fixtures: string, bend: EmbeddedOptions) {
    this.#fixtures = fixtures;
    this.#bend = bend;
    this.#http = createServer((request, response) => {
      this.#answer(request).then(
        (answer) => response.end(answer),
        (error: unknown) => response.writeHead(500).end(String(error)),
      );
    });
  }

  /** `fixtures`: where etcd's tests run; `bend`: options that go before those the tests ask for. */
  static async open(fixtures: string, bend: EmbeddedOptions = {}): Promise<Servers> {
    const servers = new Servers(fixtures, bend);
    servers.#http.listen(0, '127.0.0.1');
    await once(servers.#http, 'listening');
    return servers;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#http.closeAllConnections();
    this.#http.close();
    await Promise.allSettled([...this.#running.values()].map((stop) => stop()));
  }

  async #answer(request: IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body: unknown = JSON.parse(Buffer.concat(chunks).toString());
    if (request.url === '/start') return await this.#start(body as Wanted);
    const { Directory } = body as { Directory: string };
    await this.#running.get(Directory)?.();
    this.#running.delete(Directory);
    return '';
  }

  async #start(wanted: Wanted): Promise<string> {
    const { directory, quotaBytes, requestBytes, operations, progressMs } = wanted;
    mkdirSync(directory, { recursive: true });
    const engine = await openLmdbEngine(join(directory, 'data'), {
      ...(quotaBytes > 0 && { quotaBytes }),
      ...(requestBytes > 0 && { requestBytesMax: requestBytes }),
      ...(operations > 0 && { operationsMax: operations }),
      progressIntervalMs: progressMs,
      retainRevisions: 0,
      ...this.#bend,
    });
    const path = join(directory, 'socket');
    rmSync(path, { force: true });
    const server = await serve({
      engine,
      listen: { path },
      name: wanted.name,
      advertise: [wanted.advertise],
      tokens: tokensOf(wanted, this.#fixtures),
      ...(wanted.tls && { tls: tlsOf(wanted.tls) }),
      // Its first entry would take the revision that the tests expect of their first write.
      audit: false,
    });
    this.#running.set(directory, async () => {
      await server.drain(0);
      await engine.close();
    });
    return path;
  }
}

function tlsOf({ cert, key, ca, ciphers }: NonNullable<Wanted['tls']>): TlsOptions {
  return {
    cert: readFileSync(cert),
    key: readFileSync(key),
    ...(ca && { ca: readFileSync(ca), requestCert: true, rejectUnauthorized: true }),
    ...(ciphers.length > 0 && { ciphers: ciphers.map(opensslName).join(':') }),
  };
}

/** `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is `ECDHE-RSA-AES128-GCM-SHA256` to OpenSSL. */
function opensslName(name: string): string {
  return name
    .replace(/^TLS_/, '')
    .replace('_WITH_', '_')
    .replace(/AES_(\d+)/, 'AES$1')
    .replace(/(POLY1305)_SHA256$/, '$1')
    .replaceAll('_', '-');
}

function tokensOf({ authToken, tokenTtlSeconds }: Wanted, fixtures: string): Tokens {
  if (!authToken.startsWith('jwt')) {
    return opaqueTokens(systemClock, tokenTtlSeconds > 0 ? tokenTtlSeconds * 1_000 : undefined);
  }
  const settings = new Map(
    authToken.split(',').map((part) => part.split('=', 2) as [string, string]),
  );
  const pem = (name: string): Buffer => readFileSync(join(fixtures, settings.get(name)!));
  return signedTokens({
    algorithm: 'RS256',
    publicKey: createPublicKey(pem('pub-key')),
    privateKey: createPrivateKey(pem('priv-key')),
    ttlMs: Number.parseInt(settings.get('ttl')!, 10) * 1_000,
    clock: systemClock,
  });
}
