/**
 * The few calls a guard makes to an S3-like store, over `fetch`; and AWS Signature Version 4 for
 * stores that want it. Any other signer can be given instead.
 */
import { createHash, createHmac } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { systemClock } from '../base/system.ts';
import { HoldfastError } from '../model/errors.ts';

export interface ObjectStoreOptions {
  /** Up to and including the bucket: `https://s3.eu-central-1.amazonaws.com/bucket`. */
  readonly url: string;
  /** Makes the request acceptable to the store; `aws4fetch`'s `sign` fits. */
  readonly sign?: ((request: Request) => Request | Promise<Request>) | undefined;
  readonly fetch?: (request: Request) => Promise<Response>;
  readonly timeoutMs?: number;
}

export interface StoredObject {
  readonly etag: string;
  readonly body: Buffer;
}

export type PutCondition = { readonly ifMatch: string } | { readonly ifNoneMatch: '*' };
/** `refused`: the condition did not hold. `again`: the store asks to repeat the attempt. */
export type PutOutcome = 'done' | 'refused' | 'again';

const TIMEOUT_MS = 30_000;

export class ObjectStore {
  readonly #options: ObjectStoreOptions;

  constructor(options: ObjectStoreOptions) {
    this.#options = options;
  }

  async get(key: string): Promise<StoredObject | undefined> {
    const response = await this.#send('GET', key, {}, undefined);
    const body = Buffer.from(await this.#body(response));
    if (response.status === 404) return undefined;
    if (response.status !== 200) throw failed(`GET answered ${response.status}`, 'rejected');
    return { etag: response.headers.get('etag') ?? '', body };
  }

  async put(key: string, body: Uint8Array, condition: PutCondition): Promise<PutOutcome> {
    const headers: Record<string, string> =
      'ifMatch' in condition
        ? { 'if-match': condition.ifMatch }
        : { 'if-none-match': condition.ifNoneMatch };
    const { status } = await this.#finished('PUT', key, headers, body);
    if (status >= 200 && status < 300) return 'done';
    // 404: a condition on an object that is not there.
    if (status === 412 || status === 404) return 'refused';
    if (status === 409) return 'again';
    throw failed(`PUT answered ${status}`, status >= 500 ? 'unknown' : 'rejected');
  }

  async delete(key: string): Promise<void> {
    const { status } = await this.#finished('DELETE', key, {}, undefined);
    if (status >= 300 && status !== 404) throw failed(`DELETE answered ${status}`, 'unknown');
  }

  async #finished(
    method: string,
    key: string,
    headers: Record<string, string>,
    body: Uint8Array | undefined,
  ): Promise<Response> {
    const response = await this.#send(method, key, headers, body);
    await this.#body(response);
    return response;
  }

  async #body(response: Response): Promise<ArrayBuffer> {
    try {
      return await response.arrayBuffer();
    } catch (cause) {
      throw failed('the answer was cut off', 'unknown', cause);
    }
  }

  async #send(
    method: string,
    key: string,
    headers: Record<string, string>,
    body: Uint8Array | undefined,
  ): Promise<Response> {
    const { url, sign, timeoutMs = TIMEOUT_MS } = this.#options;
    const path = key.split('/').map(encodeURIComponent).join('/');
    const init = { method, headers, signal: AbortSignal.timeout(timeoutMs) };
    const request = new Request(`${url.replace(/\/$/, '')}/${path}`, {
      ...init,
      ...(body ? { body: body as Uint8Array<ArrayBuffer> } : {}),
    });
    const signed = sign ? await sign(request) : request;
    try {
      return await (this.#options.fetch ?? fetch)(signed);
    } catch (cause) {
      throw failed('the object store cannot be reached', 'unknown', cause);
    }
  }
}

function failed(message: string, outcome: 'rejected' | 'unknown', cause?: unknown): HoldfastError {
  return new HoldfastError('unavailable', message, { outcome, cause });
}

export interface AwsCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly region: string;
  readonly clock?: Clock;
}

/** AWS Signature Version 4 in headers, for the service `s3`. */
export function awsSigner(credentials: AwsCredentials): (request: Request) => Promise<Request> {
  const { accessKeyId, secretAccessKey, sessionToken, region } = credentials;
  const clock = credentials.clock ?? systemClock;
  return async (request) => {
    const body = request.body ? Buffer.from(await request.clone().arrayBuffer()) : undefined;
    const stamp = new Date(clock.wall()).toISOString().replace(/[-:]|\.\d{3}/g, '');
    const url = new URL(request.url);
    const headers = new Headers(request.headers);
    headers.set('x-amz-date', stamp);
    headers.set('x-amz-content-sha256', sha256(body ?? ''));
    if (sessionToken) headers.set('x-amz-security-token', sessionToken);
    // Signed but not set: `fetch` writes it itself.
    const signed = new Map([['host', url.host]]);
    for (const [name, value] of headers) {
      if (name !== 'content-type') signed.set(name, value.trim());
    }
    const names = [...signed.keys()].sort();
    const canonical = [
      request.method,
      url.pathname,
      [...url.searchParams]
        .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
        .sort()
        .join('&'),
      ...names.map((name) => `${name}:${signed.get(name)}`),
      '',
      names.join(';'),
      headers.get('x-amz-content-sha256'),
    ].join('\n');
    const scope = `${stamp.slice(0, 8)}/${region}/s3/aws4_request`;
    let key: Buffer | string = `AWS4${secretAccessKey}`;
    for (const part of scope.split('/')) key = hmac(key, part);
    const text = ['AWS4-HMAC-SHA256', stamp, scope, sha256(canonical)].join('\n');
    headers.set(
      'authorization',
      `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope},SignedHeaders=${names.join(';')},` +
        `Signature=${hmac(key, text).toString('hex')}`,
    );
    return new Request(request, { headers, ...(body ? { body } : {}) });
  };
}

function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

function hmac(key: Buffer | string, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
