/**
 * An object store in memory with exact conditional semantics (RFC 9110: `If-Match`,
 * `If-None-Match`, content-hash ETags as S3 has them), and switches to lie as some stores do.
 * Path: `/bucket/key`. It keeps every accepted write, so that a test can judge from outside.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ObjectServerLies {
  /** Answers 200 to every put, whatever its condition. */
  ignoreConditions?: boolean;
  /** Honours only `If-None-Match: *`. */
  ignoreIfMatch?: boolean;
  /** Applies a put and then cuts the connection, so often. */
  loseAnswers?: number;
  /** Answers 409 to a conditional put, so often, as S3 does under contention. */
  conflicts?: number;
}

export interface ObjectWrite {
  readonly key: string;
  readonly etag: string | undefined;
  readonly body: Buffer | undefined;
}

interface StoredObject {
  readonly body: Buffer;
  readonly etag: string;
}

export class ObjectServer {
  readonly lies: ObjectServerLies = {};
  /** Accepted writes in order; a delete has no body. */
  readonly writes: ObjectWrite[] = [];
  readonly objects: Map<string, StoredObject> = new Map();
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<ObjectServer> {
    const server = createServer();
    const store = new ObjectServer(server);
    server.on('request', async (request, response) => {
      try {
        const body = await read(request);
        const { status, object, cut } = store.#answer(request, body);
        if (cut) return void response.destroy();
        response.writeHead(status, object ? { etag: object.etag } : {});
        response.end(request.method === 'GET' ? object?.body : undefined);
      } catch {
        response.destroy();
      }
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return store;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/bucket`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #answer(
    { method, url = '/', headers }: IncomingMessage,
    body: Buffer,
  ): { readonly status: number; readonly object?: StoredObject; readonly cut?: boolean } {
    const key = decodeURIComponent(url.split('?', 1)[0]!.replace(/^\/[^/]*\//, ''));
    const present = this.objects.get(key);
    if (method === 'GET' || method === 'HEAD') {
      return present ? { status: 200, object: present } : { status: 404 };
    }
    if (method === 'DELETE') {
      if (present) this.writes.push({ key, etag: undefined, body: undefined });
      this.objects.delete(key);
      return { status: 204 };
    }
    if (method !== 'PUT') return { status: 405 };
    const ifMatch = headers['if-match'];
    const ifNoneMatch = headers['if-none-match'];
    const { lies } = this;
    if ((ifMatch ?? ifNoneMatch) && (lies.conflicts ?? 0) > 0) {
      lies.conflicts!--;
      return { status: 409 };
    }
    if (!lies.ignoreConditions) {
      if (ifNoneMatch === '*' && present) return { status: 412 };
      if (ifMatch !== undefined && !lies.ignoreIfMatch) {
        if (!present) return { status: 404 };
        if (ifMatch !== present.etag) return { status: 412 };
      }
    }
    const object = { body, etag: `"${createHash('md5').update(body).digest('hex')}"` };
    this.objects.set(key, object);
    this.writes.push({ key, etag: object.etag, body });
    if ((lies.loseAnswers ?? 0) > 0) {
      lies.loseAnswers!--;
      return { status: 0, cut: true };
    }
    return { status: 200, object };
  }
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
