/** `holdfast serve`: the etcd v3 services on one port, over any engine. */
import { createPrivateKey, createPublicKey, createSecretKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { TlsOptions } from 'node:tls';
import { parseArgs } from 'node:util';
import { systemClock, systemRandom } from '../base/system.ts';
import { openEngine } from '../client.ts';
import { HoldfastError } from '../model/errors.ts';
import { Hops } from '../model/hops.ts';
import {
  type JwtAlgorithm,
  opaqueTokens,
  signedTokens,
  type Tokens,
} from '../server/access/tokens.ts';
import { type RunningServer, serve } from '../server/serve.ts';
import type { TenantLimits } from '../server/tenants/meter.ts';
import type { Command } from './command.ts';
import { LEVELS, type Logger, logger, type Threshold } from './log.ts';
import { tracerOfProcess } from './tracing.ts';

const USAGE = `holdfast serve: etcd v3 gRPC, its JSON gateway, health and metrics on one port

  holdfast serve                                    on 127.0.0.1:2379, data in ./holdfast-data
  holdfast serve --engine etcd://a:2379,b:2379      as a gateway before a cluster
  holdfast serve --listen 0.0.0.0:2379 --cert server.pem --key server.key

  --engine URL           lmdb:DIR, memory:, etcd://…, postgres://…   (lmdb:./holdfast-data)
  --listen HOST:PORT     or unix:PATH                                (127.0.0.1:2379)
  --advertise URLS       where clients are told to find this server
  --name NAME            of this member                              (default)
  --cert FILE --key FILE TLS; reloaded on SIGHUP
  --ciphers LIST         of TLS 1.2 and below, in OpenSSL's names
  --client-ca FILE       ask clients for certificates signed by this
  --client-crl FILE      and refuse the revoked ones
  --certificate-users    take a client certificate's common name as the user
  --auth-token SPEC      simple, or jwt,sign-method=RS256,pub-key=F,priv-key=F,ttl=10m
  --quota-bytes N        of the store; 0: none                       (8 GiB)
  --retain-revisions N   of the history; 0: all of it                (100000)
  --request-bytes N      of keys and values in one request           (1.5 MiB)
  --transaction-operations N                                         (128)
  --progress-seconds N   between progress messages of a quiet watch  (600)
  --tenant-keys N  --tenant-bytes N  --tenant-leases N  --tenant-watches N
  --tenant-requests N    per second; what one tenant may use
  --limits FILE          those as JSON, {"tenant-keys": N, …}; read again on SIGHUP
  --password-length N    shorter ones are refused                   (1)
  --seal-days N          a key seals tokens for so long; 0: for ever (30)
  --vigil MICROSECONDS   stay awake between requests that follow each other so closely (300)
  --log-level LEVEL      trace, debug, info, warn, error, fatal or silent (info)
  --log-level-file FILE  which holds that word; read again on SIGHUP
  --grace SECONDS        to finish what is under way at SIGTERM      (10)
  --no-audit             keep no log of administrative acts in the store
  --insecure             serve an open address without TLS and authentication

Every option may be given as an environment variable: --client-ca is HOLDFAST_CLIENT_CA.`;

const OPTIONS = {
  engine: { type: 'string' },
  listen: { type: 'string' },
  advertise: { type: 'string' },
  name: { type: 'string' },
  cert: { type: 'string' },
  key: { type: 'string' },
  ciphers: { type: 'string' },
  'client-ca': { type: 'string' },
  'client-crl': { type: 'string' },
  'certificate-users': { type: 'boolean' },
  'auth-token': { type: 'string' },
  'quota-bytes': { type: 'string' },
  'retain-revisions': { type: 'string' },
  'request-bytes': { type: 'string' },
  'transaction-operations': { type: 'string' },
  'progress-seconds': { type: 'string' },
  'tenant-keys': { type: 'string' },
  'tenant-bytes': { type: 'string' },
  'tenant-leases': { type: 'string' },
  'tenant-watches': { type: 'string' },
  'tenant-requests': { type: 'string' },
  limits: { type: 'string' },
  'password-length': { type: 'string' },
  'seal-days': { type: 'string' },
  vigil: { type: 'string' },
  'log-level': { type: 'string' },
  'log-level-file': { type: 'string' },
  grace: { type: 'string' },
  'no-audit': { type: 'boolean' },
  insecure: { type: 'boolean' },
} as const;

type Values = { [name in keyof typeof OPTIONS]?: string | boolean };

/** As long as a sync of a good disk takes, and the way to a client of the same machine and back. */
const VIGIL_MICROSECONDS = 300;
const GRACE_SECONDS = 10;
/** For the reader of the log, at the end. */
const FLUSH_MS = 1_000;
const SEAL_DAYS = 30;
/** Values that one transaction may replace: the log of an embedded store keeps them in one record. */
const REPLACED_BYTES_MAX = 2 ** 30;
const EMBEDDED = /^(lmdb|memory):/;
const NOT_ETCD = /^(?!etcd)/;
const DAY_MS = 86_400_000;

export const command: Command = {
  about: 'serve the etcd v3 protocol over an engine',
  usage: USAGE,
  async run(args) {
    const { values } = parseArgs({ args: [...args], options: OPTIONS, strict: true });
    const settings: Values = { ...fromEnvironment(), ...values };
    const lines = logger();
    lines.threshold = thresholdFrom(settings);
    const { log } = lines;
    const url = text(settings.engine) ?? 'lmdb:./holdfast-data';
    const hops = url.startsWith('etcd') ? new Hops(systemRandom) : undefined;
    const tracer = await tracerOfProcess(log);
    const engine = await openEngine(url, {
      ...storeOptions(url, settings),
      ...(hops && { hops }),
      ...(tracer && { tracer }),
    });
    const graceMs = number(settings.grace, 'grace', GRACE_SECONDS) * 1_000;
    let server: RunningServer;
    try {
      server = await serve({
        engine,
        listen: listenOn(text(settings.listen)),
        ...given('advertise', text(settings.advertise)?.split(',')),
        ...given('name', text(settings.name)),
        ...given('tls', tlsFrom(settings)),
        certificateUsers: settings['certificate-users'] === true,
        tokens: tokensFrom(text(settings['auth-token']) ?? 'simple'),
        tenantLimits: tenantLimits(settings),
        sealRotateMs: sealRotateMs(settings),
        passwordLengthMin: number(settings['password-length'], 'password-length', 1),
        vigilMs: number(settings.vigil, 'vigil', VIGIL_MICROSECONDS) / 1_000,
        audit: settings['no-audit'] !== true,
        insecure: settings.insecure === true,
        hops,
        tracer,
        log,
      });
    } catch (error) {
      await engine.close();
      throw error;
    }
    process.on('SIGHUP', () => reload(server, settings, lines));
    await terminated();
    await server.drain(graceMs);
    await engine.close();
    log('info', 'stopped');
    // A reader that stands still must not keep the process from ending.
    if (!(await lines.flushed(FLUSH_MS))) process.exit(0);
    return 0;
  },
};

/** The first signal asks for an orderly end; a second one ends at once. */
function terminated(): Promise<void> {
  return new Promise((resolve) => {
    let asked = false;
    const stop = (): void => {
      if (asked) process.exit(1);
      asked = true;
      resolve();
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}

/** A file that cannot be read leaves what it says as it was. */
function reload(server: RunningServer, settings: Values, lines: Logger): void {
  const { log } = lines;
  const attempt = (what: string, work: () => void): void => {
    try {
      work();
    } catch (error) {
      log('error', `${what} not reloaded`, { reason: HoldfastError.from(error).message });
    }
  };
  attempt('certificates', () => {
    const tls = tlsFrom(settings);
    if (tls) server.reload(tls);
  });
  attempt('limits', () => {
    if (settings.limits !== undefined) server.limit(tenantLimits(settings));
  });
  attempt('log level', () => {
    if (settings['log-level-file'] === undefined) return;
    lines.threshold = thresholdFrom(settings);
    log('info', 'log level reloaded', { threshold: lines.threshold });
  });
}

/** What the file says goes before what the option says. */
function thresholdFrom(settings: Values): Threshold {
  const path = text(settings['log-level-file']);
  const word = path === undefined ? text(settings['log-level']) : file(path).toString().trim();
  if (word === undefined) return 'info';
  if (Object.hasOwn(LEVELS, word)) return word as Threshold;
  throw new HoldfastError(
    'invalid-argument',
    `a log level is one of ${Object.keys(LEVELS).join(', ')}, not ${word.slice(0, 40)}`,
  );
}

function fromEnvironment(): Values {
  const values: Record<string, string | boolean> = {};
  for (const [name, { type }] of Object.entries(OPTIONS)) {
    const value = process.env[`HOLDFAST_${name.toUpperCase().replaceAll('-', '_')}`];
    if (value === undefined || value === '') continue;
    values[name] = type === 'boolean' ? value === 'true' || value === '1' : value;
  }
  return values;
}

function listenOn(value: string | undefined): { host?: string; port?: number; path?: string } {
  if (value === undefined) return {};
  if (value.startsWith('unix:')) return { path: value.slice('unix:'.length) };
  const match = /^(?:(\[[0-9a-fA-F:]+\]|[^:]*):)?(\d{1,5})$/.exec(value);
  const port = Number(match?.[2]);
  if (!match || port > 65_535) {
    throw new HoldfastError(
      'invalid-argument',
      `--listen takes HOST:PORT or unix:PATH, not ${value}`,
    );
  }
  const host = match[1]?.replace(/^\[|\]$/g, '');
  return { ...(host ? { host } : {}), port };
}

function tlsFrom(settings: Values): TlsOptions | undefined {
  const cert = text(settings.cert);
  const key = text(settings.key);
  if (!cert && !key) return undefined;
  if (!cert || !key) throw new HoldfastError('invalid-argument', '--cert and --key go together');
  const ca = text(settings['client-ca']);
  const crl = text(settings['client-crl']);
  const ciphers = text(settings.ciphers);
  return {
    cert: file(cert),
    key: file(key),
    ...(ca ? { ca: file(ca), requestCert: true, rejectUnauthorized: true } : {}),
    ...(crl ? { crl: crlAsPem(file(crl)) } : {}),
    ...(ciphers ? { ciphers } : {}),
  };
}

/** Lists of revoked certificates are often published as DER, which etcd reads and Node.js does not. */
function crlAsPem(bytes: Buffer): string | Buffer {
  if (bytes.includes('-----BEGIN')) return bytes;
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return ['-----BEGIN X509 CRL-----', ...lines, '-----END X509 CRL-----', ''].join('\n');
}

/** etcd's own way to say it: `jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…`. */
function tokensFrom(spec: string): Tokens {
  const [kind, ...parts] = spec.split(',');
  if (kind === 'simple' && parts.length === 0) return opaqueTokens(systemClock);
  if (kind !== 'jwt') {
    throw new HoldfastError('invalid-argument', `--auth-token takes simple or jwt,…, not ${spec}`);
  }
  const settings = new Map(parts.map((part) => part.split('=', 2) as [string, string]));
  const algorithm = settings.get('sign-method') as JwtAlgorithm;
  if (!['HS256', 'RS256', 'ES256', 'EdDSA'].includes(algorithm)) {
    throw new HoldfastError('invalid-argument', 'sign-method is one of HS256, RS256, ES256, EdDSA');
  }
  const privateFile = settings.get('priv-key');
  const privateKey = privateFile === undefined ? undefined : keyFrom(privateFile, algorithm, true);
  const publicFile = settings.get('pub-key') ?? privateFile;
  if (publicFile === undefined) {
    throw new HoldfastError('invalid-argument', 'jwt needs pub-key=FILE or priv-key=FILE');
  }
  const publicKey = keyFrom(publicFile, algorithm, false);
  return signedTokens({
    algorithm,
    publicKey,
    privateKey,
    ttlMs: ttlOf(settings.get('ttl')),
    clock: systemClock,
  });
}

function keyFrom(path: string, algorithm: JwtAlgorithm, secret: boolean): KeyObject {
  const bytes = file(path);
  if (algorithm === 'HS256') return createSecretKey(bytes);
  return secret ? createPrivateKey(bytes) : createPublicKey(bytes);
}

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000 };

function ttlOf(value = '5m'): number {
  const match = /^(\d+)([smh])$/.exec(value);
  if (!match)
    throw new HoldfastError('invalid-argument', `ttl=${value} is not like 30s, 10m or 2h`);
  return Number(match[1]) * UNITS[match[2]!]!;
}

const LIMITS = [
  'tenant-keys',
  'tenant-bytes',
  'tenant-leases',
  'tenant-watches',
  'tenant-requests',
] as const;
type Limit = (typeof LIMITS)[number];

/** What the file says goes before what the options say. */
function tenantLimits(settings: Values): TenantLimits {
  const path = text(settings.limits);
  const said = { ...settings, ...(path === undefined ? {} : limitsIn(path)) };
  const limit = (name: Limit): number | undefined =>
    said[name] === undefined ? undefined : number(said[name], name, 0);
  return {
    keys: limit('tenant-keys'),
    bytes: limit('tenant-bytes'),
    leases: limit('tenant-leases'),
    watches: limit('tenant-watches'),
    requestsPerSecond: limit('tenant-requests'),
  };
}

function limitsIn(path: string): Partial<Record<Limit, string>> {
  let said: unknown;
  try {
    said = JSON.parse(file(path).toString());
  } catch (error) {
    if (HoldfastError.is(error)) throw error;
    throw new HoldfastError('invalid-argument', `${path} is not JSON`);
  }
  if (typeof said !== 'object' || said === null || Array.isArray(said)) {
    throw new HoldfastError('invalid-argument', `${path} is not an object of limits`);
  }
  const limits: Partial<Record<Limit, string>> = {};
  for (const [name, value] of Object.entries(said)) {
    const known = LIMITS.find((limit) => limit === name);
    if (!known || typeof value !== 'number') {
      throw new HoldfastError(
        'invalid-argument',
        `${path}: ${name} is not one of ${LIMITS.join(', ')} with a number`,
      );
    }
    limits[known] = String(value);
  }
  return limits;
}

/** What an engine lets a server choose, the engine's own name of it, and which engines do. */
const STORE_OPTIONS = [
  { name: 'quota-bytes', option: 'quotaBytes', engines: EMBEDDED, least: 0 },
  { name: 'retain-revisions', option: 'retainRevisions', engines: NOT_ETCD, least: 0 },
  { name: 'request-bytes', option: 'requestBytesMax', least: 1, most: 16 * 2 ** 20 },
  { name: 'transaction-operations', option: 'operationsMax', least: 2 },
  {
    name: 'progress-seconds',
    option: 'progressIntervalMs',
    engines: NOT_ETCD,
    least: 1,
    unit: 1_000,
  },
];

function storeOptions(url: string, settings: Values): Record<string, number> {
  const options: Record<string, number> = {};
  for (const { name, option, engines, unit = 1, ...bounds } of STORE_OPTIONS) {
    const said = settings[name as keyof Values];
    if (said === undefined) continue;
    if (engines?.test(url) === false) {
      throw new HoldfastError(
        'invalid-argument',
        `--${name} is for the store behind --engine to set`,
      );
    }
    options[option] = whole(name, String(said), bounds) * unit;
  }
  const { requestBytesMax = 1.5 * 2 ** 20, operationsMax = 128 } = options;
  if (EMBEDDED.test(url) && requestBytesMax * operationsMax > REPLACED_BYTES_MAX) {
    throw new HoldfastError(
      'invalid-argument',
      'one transaction could replace more than 1 GiB: lower --request-bytes or --transaction-operations',
    );
  }
  return options;
}

function whole(
  name: string,
  said: string,
  { least, most = Number.MAX_SAFE_INTEGER }: { readonly least: number; readonly most?: number },
): number {
  const value = Number(said);
  if (/^\d{1,16}$/.test(said) && value >= least && value <= most) return value;
  throw new HoldfastError(
    'invalid-argument',
    `--${name} takes a whole number from ${least} to ${most}, not ${said.slice(0, 40)}`,
  );
}

function sealRotateMs(settings: Values): number {
  const days = number(settings['seal-days'], 'seal-days', SEAL_DAYS);
  return days === 0 ? Number.POSITIVE_INFINITY : days * DAY_MS;
}

function file(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new HoldfastError('invalid-argument', `cannot read ${path}: ${(error as Error).message}`);
  }
}

function text(value: string | boolean | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function number(value: string | boolean | undefined, name: string, otherwise: number): number {
  if (value === undefined) return otherwise;
  const parsed = Number(value);
  if (!Number.isFinite(parsed) || parsed < 0) {
    throw new HoldfastError('invalid-argument', `--${name} takes a number, not ${value}`);
  }
  return parsed;
}

function given<K extends string, V>(name: K, value: V | undefined): { [k in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [k in K]?: V });
}
