/**
 * Metadata: what a call carries in its headers beside what gRPC itself puts there. A name that ends
 * in `-bin` has bytes for a value, in base64.
 */
import { type Bytes, binaryString, fromBinaryString } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { type Header, type HeaderList, headerValue } from '../http2/headers.ts';

/** Values of `-bin` names are bytes, all others printable ASCII. */
export type Metadata = readonly (readonly [name: string, value: string | Bytes])[];

const NAME = /^[0-9a-z_.-]+$/;
const VALUE = /^[\x20-\x7e]*$/;
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;

/** Names that belong to the transport and to gRPC. */
const RESERVED: ReadonlySet<string> = new Set([
  'content-type',
  'content-length',
  'te',
  'host',
  'connection',
  'user-agent',
]);

export function isReserved(name: string): boolean {
  return name.startsWith(':') || name.startsWith('grpc-') || RESERVED.has(name);
}

/** Base64 without padding, as gRPC wants it. */
export function encodeBinary(bytes: Bytes): string {
  return btoa(binaryString(bytes)).replace(/=+$/, '');
}

/** With or without padding, in either alphabet; undefined when it is no base64. */
export function decodeBinary(value: string): Bytes | undefined {
  if (!BASE64.test(value)) return undefined;
  try {
    return fromBinaryString(atob(value.replaceAll('-', '+').replaceAll('_', '/')));
  } catch {
    return undefined;
  }
}

/** The first value of a `-bin` name. */
export function binaryValue(headers: HeaderList, name: string): Bytes | undefined {
  const value = headerValue(headers, name);
  return value === undefined ? undefined : decodeBinary(value.split(',')[0]!.trim());
}

/** Header fields for metadata. Throws `invalid-argument` for what cannot be sent. */
export function metadataFields(metadata: Metadata): Header[] {
  return metadata.map(([name, value]) => {
    if (!NAME.test(name) || isReserved(name)) {
      throw new HoldfastError('invalid-argument', `${JSON.stringify(name)} cannot name metadata`);
    }
    if (name.endsWith('-bin') !== (typeof value !== 'string')) {
      throw new HoldfastError('invalid-argument', `metadata ${name}: bytes go with -bin names`);
    }
    if (typeof value !== 'string') return [name, encodeBinary(value)];
    const trimmed = value.trim();
    if (!VALUE.test(trimmed)) {
      throw new HoldfastError('invalid-argument', `metadata ${name}: not printable ASCII`);
    }
    return [name, trimmed];
  });
}

/** The metadata in received headers; binary values that are no base64 are left out. */
export function receivedMetadata(headers: HeaderList): Metadata {
  const metadata: (readonly [string, string | Bytes])[] = [];
  for (const [name, value] of headers) {
    if (isReserved(name)) continue;
    if (!name.endsWith('-bin')) metadata.push([name, value]);
    else {
      // Several values may have been joined on the way.
      for (const part of value.split(',')) {
        const bytes = decodeBinary(part.trim());
        if (bytes) metadata.push([name, bytes]);
      }
    }
  }
  return metadata;
}
