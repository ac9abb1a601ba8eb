/** What an etcd engine is told, and what its URL says. */
import type { ConnectionOptions as TlsOptions } from 'node:tls';
import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { Tracer } from '../../base/tracer.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Hops } from '../../model/hops.ts';

export interface Endpoint {
  readonly host: string;
  readonly port: number;
  /** A Unix socket instead of host and port. */
  readonly path?: string;
}

export interface EtcdOptions {
  readonly clock?: Clock;
  readonly random?: Random;
  /** CA, client certificate and key; given, every endpoint is spoken to with TLS. */
  readonly tls?: TlsOptions;
  readonly user?: string;
  readonly password?: string;
  /** A member that has not answered by then is left for the next. @default 2,000 */
  readonly attemptMs?: number;
  /** A call ends within this, whatever happens. @default 8,000 */
  readonly callTimeoutMs?: number;
  /** Report the first failure of a member instead of trying again; for who knows better. */
  readonly failFast?: boolean;
  /** Told when a connection is gone, also when no call was under way on it. */
  readonly onDisconnect?: () => void;
  /** Given, requests say which servers they come through; for a server before this engine. */
  readonly hops?: Hops;
  /** Given, requests carry the active span's context. One that takes several along has the first's. */
  readonly tracer?: Tracer;
  /** Told at the start when the cluster runs a release with known faults. @default nobody */
  readonly onWarning?: (message: string) => void;
  /** Events a slow reader may have waiting before its watch is paused. @default 8 MiB */
  readonly watchBytesMax?: number;
  /** The server's own limit on operations in a transaction. @default 128 */
  readonly operationsMax?: number;
  /** The server's own limit on a request. @default 1.5 MiB */
  readonly requestBytesMax?: number;
  /**
   * Transactions that say they may share a revision, as those of locks do, go in one request with
   * others while an answer is awaited. Not by default where the caller has rights: etcd before 3.4.42,
   * 3.5.28 and 3.6.9 does not look at them in nested transactions.
   * @default true without user and client certificate
   */
  readonly shareRevisions?: boolean;
}

export interface EtcdConfig extends EtcdOptions {
  readonly endpoints: readonly Endpoint[];
}

const DEFAULT_PORT = 2379;

/** `etcd://user:secret@a:2379,b,c:2381`; `etcds://` asks for TLS, `etcd+unix:/path` for a socket. */
export function parseEtcdUrl(url: string, options: EtcdOptions = {}): EtcdConfig {
  if (url.startsWith('etcd+unix:')) {
    const path = url.slice('etcd+unix:'.length);
    return { ...options, endpoints: [{ host: 'localhost', port: 0, path }] };
  }
  const match = /^(etcds?):\/\/(?:([^@/]*)@)?([^/?#]+)\/?$/.exec(url);
  if (!match) {
    throw new HoldfastError(
      'invalid-argument',
      `${JSON.stringify(url)} is not an etcd URL; write etcd://host:2379 or etcd://a:2379,b:2379,c:2379`,
    );
  }
  const [, scheme, credentials, hosts = ''] = match;
  const [user, password] = (credentials ?? '').split(':', 2).map(decodeURIComponent);
  return {
    ...options,
    ...(user ? { user, password: password ?? '' } : {}),
    ...(scheme === 'etcds' ? { tls: options.tls ?? {} } : {}),
    endpoints: hosts.split(',').map(parseEndpoint),
  };
}

function parseEndpoint(text: string): Endpoint {
  const match = /^(\[[0-9a-fA-F:]+\]|[^:[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[2] ?? DEFAULT_PORT);
  const host = match?.[1]?.replace(/^\[|\]$/g, '');
  if (!host || port < 1 || port > 65_535) {
    throw new HoldfastError('invalid-argument', `${JSON.stringify(text)} is not host:port`);
  }
  return { host, port };
}
