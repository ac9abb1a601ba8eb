/** The caches the agent knows how to empty, and how they must be configured. */
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '../../model/errors.ts';
import type { CacheTarget } from './agent.ts';

const TIMEOUT_MS = 10_000;

/** Varnish, with the `PURGE` method of `varnishVcl`. */
export function varnishCache(url: string): CacheTarget {
  return {
    url,
    purge: async (path) => {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      const response = await fetch(new URL(encodeURI(path), url), { method: 'PURGE', signal });
      await response.arrayBuffer();
      if (response.ok) return;
      throw new HoldfastError('unavailable', `Varnish answered ${response.status} to a purge`);
    },
  };
}

/** A whole configuration: purges from this machine only; no grace, for that serves what is old. */
export function varnishVcl(backend: { readonly host: string; readonly port: number }): string {
  return `vcl 4.1;
backend default { .host = "${backend.host}"; .port = "${backend.port}"; }
acl purgers { "127.0.0.1"; "::1"; }
sub vcl_recv {
  if (req.method == "PURGE") {
    if (client.ip !~ purgers) { return (synth(405)); }
    return (purge);
  }
}
sub vcl_backend_response {
  set beresp.grace = 0s;
  set beresp.keep = 0s;
  if (beresp.http.Cache-Control ~ "no-store") {
    set beresp.uncacheable = true;
    set beresp.ttl = 0s;
  }
}
`;
}

export interface NginxCacheOptions {
  readonly url: string;
  /** As in `proxy_cache_path`. */
  readonly directory: string;
  /** As in `levels=`; by default `1:2`. */
  readonly levels?: string;
  /** As in `proxy_cache_key`; by default the path alone (`$uri`). */
  readonly key?: (path: string) => string;
}

/**
 * nginx keeps each content in a file named by the hash of its key; one that is gone is fetched
 * again. `proxy_cache_lock` must be on, with long limits: it makes a fetch wait for the one that
 * is storing, and only so is an older one seen.
 */
export function nginxCache(options: NginxCacheOptions): CacheTarget {
  const { url, directory, levels = '1:2', key = (path) => path } = options;
  return {
    url,
    purge: async (path) => {
      const name = createHash('md5').update(key(path)).digest('hex');
      const folders: string[] = [];
      let end = name.length;
      for (const width of levels.split(':').map(Number)) {
        folders.push(name.slice(end - width, end));
        end -= width;
      }
      await rm(join(directory, ...folders, name), { force: true });
    },
  };
}

/** The inside of nginx's `server` block. `zone` is the name given in `proxy_cache_path`. */
export function nginxLocation(backend: string, zone: string): string {
  return `location / {
  proxy_pass ${backend};
  proxy_cache ${zone};
  proxy_cache_key $uri;
  proxy_cache_lock on;
  proxy_cache_lock_age 1h;
  proxy_cache_lock_timeout 1h;
  proxy_cache_use_stale off;
}
`;
}
