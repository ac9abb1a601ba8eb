/** The static table of RFC 7541, appendix A: index 1 is the first row. */
import type { Header } from '../headers.ts';

const ROWS: readonly Header[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ['accept-language', ''],
  ['accept-ranges', ''],
  ['accept', ''],
  ['access-control-allow-origin', ''],
  ['age', ''],
  ['allow', ''],
  ['authorization', ''],
  ['cache-control', ''],
  ['content-disposition', ''],
  ['content-encoding', ''],
  ['content-language', ''],
  ['content-length', ''],
  ['content-location', ''],
  ['content-range', ''],
  ['content-type', ''],
  ['cookie', ''],
  ['date', ''],
  ['etag', ''],
  ['expect', ''],
  ['expires', ''],
  ['from', ''],
  ['host', ''],
  ['if-match', ''],
  ['if-modified-since', ''],
  ['if-none-match', ''],
  ['if-range', ''],
  ['if-unmodified-since', ''],
  ['last-modified', ''],
  ['link', ''],
  ['location', ''],
  ['max-forwards', ''],
  ['proxy-authenticate', ''],
  ['proxy-authorization', ''],
  ['range', ''],
  ['referer', ''],
  ['refresh', ''],
  ['retry-after', ''],
  ['server', ''],
  ['set-cookie', ''],
  ['strict-transport-security', ''],
  ['transfer-encoding', ''],
  ['user-agent', ''],
  ['vary', ''],
  ['via', ''],
  ['www-authenticate', ''],
];

export const STATIC_SIZE: number = ROWS.length;

/** Rows by index; slot 0 is unused, as in the RFC. */
export const STATIC_TABLE: readonly Header[] = [['', ''], ...ROWS];

/** name → its first index; name and value, joined by a zero byte, → index. */
export const STATIC_NAMES: ReadonlyMap<string, number> = indexNames();
export const STATIC_FIELDS: ReadonlyMap<string, number> = indexFields();

function indexNames(): Map<string, number> {
  const names = new Map<string, number>();
  for (let i = STATIC_SIZE; i > 0; i--) names.set(STATIC_TABLE[i]![0], i);
  return names;
}

function indexFields(): Map<string, number> {
  const fields = new Map<string, number>();
  for (let i = 1; i <= STATIC_SIZE; i++) {
    const [name, value] = STATIC_TABLE[i]!;
    fields.set(`${name}\0${value}`, i);
  }
  return fields;
}
