/** The public keys for guards, at a well-known address; whoever can connect may know them. */
import { createHash } from 'node:crypto';
import { HoldfastError } from '../../model/errors.ts';
import { writeSealKeys } from '../../model/seal-keys.ts';
import type { Exchange } from '../exchange.ts';
import type { SealKeys } from './keys.ts';

/** A key that was thrown away is trusted by nobody for longer. */
const MAX_AGE_SECONDS = 300;

export function sealKeysPage(keys: SealKeys): (exchange: Exchange) => Promise<void> {
  return async (exchange) => {
    try {
      answer(writeSealKeys(await keys.published()), exchange);
    } catch (error) {
      const { message } = HoldfastError.from(error);
      exchange.head(503, { 'content-type': 'text/plain', 'cache-control': 'no-store' });
      exchange.end(`${message}\n`);
    }
  };
}

function answer(document: string, exchange: Exchange): void {
  const etag = `"${createHash('sha256').update(document).digest('base64url').slice(0, 22)}"`;
  const headers = { 'cache-control': `public, max-age=${MAX_AGE_SECONDS}`, etag };
  if (exchange.header('if-none-match') === etag) {
    exchange.head(304, headers);
    exchange.end();
    return;
  }
  exchange.head(200, { ...headers, 'content-type': 'application/jwk-set+json' });
  exchange.end(document);
}
