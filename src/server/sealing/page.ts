/** The public keys for guards, at a well-known address; whoever can connect may know them. */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { HoldfastError } from '../../model/errors.ts';
import { writeSealKeys } from '../../model/seal-keys.ts';
import type { SealKeys } from './keys.ts';

/** A key that was thrown away is trusted by nobody for longer. */
const MAX_AGE_SECONDS = 300;

export function sealKeysPage(
  keys: SealKeys,
): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  return async (request, response) => {
    try {
      answer(writeSealKeys(await keys.published()), request, response);
    } catch (error) {
      const { message } = HoldfastError.from(error);
      response.writeHead(503, { 'content-type': 'text/plain', 'cache-control': 'no-store' });
      response.end(`${message}\n`);
    }
  };
}

function answer(document: string, request: IncomingMessage, response: ServerResponse): void {
  const etag = `"${createHash('sha256').update(document).digest('base64url').slice(0, 22)}"`;
  const headers = { 'cache-control': `public, max-age=${MAX_AGE_SECONDS}`, etag };
  if (request.headers['if-none-match'] === etag) {
    response.writeHead(304, headers);
    response.end();
    return;
  }
  response.writeHead(200, { ...headers, 'content-type': 'application/jwk-set+json' });
  response.end(document);
}
