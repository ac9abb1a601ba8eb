/**
 * Header lists and the rules of RFC 9113, section 8, on what may stand in one.
 *
 * Names and values hold one character per byte. A list that reaches a handler has passed these
 * checks. Lists are shared between calls with equal headers, so they are frozen.
 */

export type Header = readonly [name: string, value: string];
export type HeaderList = readonly Header[];

/** What the machine itself must know about a list; `problem` says why it is malformed. */
export interface Verdict {
  readonly problem: string | undefined;
  /** -1 where the list has no content-length. */
  readonly contentLength: number;
  /** 0 for requests and trailers. */
  readonly status: number;
  /** The message has no content whatever its content-length says. */
  readonly bodiless: boolean;
}

const NAME = /^:?[!-9;-@[-~]+$/;
const BAD_IN_VALUE = /[\0\r\n]/;
const SPACE = 0x20;
const TAB = 0x09;

/** What is wrong with a field by itself (section 8.2.1), or undefined. */
export function fieldProblem(name: string, value: string): string | undefined {
  if (!NAME.test(name)) return 'a field name with a forbidden character';
  if (value.length === 0) return undefined;
  if (BAD_IN_VALUE.test(value)) return 'a field value with a forbidden character';
  const first = value.charCodeAt(0);
  const last = value.charCodeAt(value.length - 1);
  if (first === SPACE || first === TAB || last === SPACE || last === TAB) {
    return 'a field value that begins or ends with white space';
  }
  return undefined;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: everything that fits into a byte
const BEYOND_BYTES = /[^\x00-\xff]/;

/** What forbids sending a list, or undefined; checked before a byte of it is written. */
export function outgoingProblem(list: HeaderList): string | undefined {
  for (let i = 0; i < list.length; i++) {
    const [name, value] = list[i]!;
    const problem = fieldProblem(name, value);
    if (problem) return `${problem} (${name})`;
    if (BEYOND_BYTES.test(value)) return `a field value beyond bytes (${name})`;
    if (isConnectionField(name, value)) return `a connection header ${name}`;
  }
  return undefined;
}

/** Fields that belong to a connection and must not be in a message (section 8.2.2). */
function isConnectionField(name: string, value: string): boolean {
  switch (name.length) {
    case 2:
      return name === 'te' && value !== 'trailers';
    case 7:
      return name === 'upgrade';
    case 10:
      return name === 'connection' || name === 'keep-alive';
    case 16:
      return name === 'proxy-connection';
    case 17:
      return name === 'transfer-encoding';
    default:
      return false;
  }
}

const DIGITS = /^[0-9]{1,15}$/;

/** Several equal content-lengths are one; anything else that is not one number is malformed. */
function parseLength(value: string, known: number): number | undefined {
  if (!DIGITS.test(value)) return undefined;
  const length = Number(value);
  return known === -1 || known === length ? length : undefined;
}

const malformed = (problem: string): Verdict => ({
  problem,
  contentLength: -1,
  status: 0,
  bodiless: false,
});

/** Section 8.3.1: the list that opens a request. */
export function checkRequest(list: HeaderList): Verdict {
  let method: string | undefined;
  let scheme: string | undefined;
  let path: string | undefined;
  let authority: string | undefined;
  let host: string | undefined;
  let contentLength = -1;
  let regular = false;
  for (let i = 0; i < list.length; i++) {
    const [name, value] = list[i]!;
    if (name.charCodeAt(0) === 0x3a) {
      if (regular) return malformed('a pseudo-header behind a regular one');
      if (name === ':method' && method === undefined) method = value;
      else if (name === ':path' && path === undefined) path = value;
      else if (name === ':scheme' && scheme === undefined) scheme = value;
      else if (name === ':authority' && authority === undefined) authority = value;
      else return malformed(`a second or unknown pseudo-header ${name}`);
      continue;
    }
    regular = true;
    if (isConnectionField(name, value)) return malformed(`a connection header ${name}`);
    if (name === 'host') host = value;
    if (name === 'content-length') {
      const length = parseLength(value, contentLength);
      if (length === undefined) return malformed('a wrong content-length');
      contentLength = length;
    }
  }
  const problem = requestProblem(method, scheme, path, authority);
  if (problem) return malformed(problem);
  if (host !== undefined && authority !== undefined && host !== authority) {
    return malformed('host and :authority differ');
  }
  return { problem: undefined, contentLength, status: 0, bodiless: false };
}

function requestProblem(
  method: string | undefined,
  scheme: string | undefined,
  path: string | undefined,
  authority: string | undefined,
): string | undefined {
  if (!method) return 'no :method';
  if (method === 'CONNECT') {
    if (scheme !== undefined || path !== undefined) return 'CONNECT with :scheme or :path';
    return authority ? undefined : 'CONNECT without :authority';
  }
  if (!scheme) return 'no :scheme';
  if (!path) return 'no :path';
  if ((scheme === 'http' || scheme === 'https') && path.charCodeAt(0) !== 0x2f) {
    return method === 'OPTIONS' && path === '*' ? undefined : 'a :path without a slash';
  }
  return undefined;
}

const STATUS = /^[1-9][0-9][0-9]$/;

/** Section 8.3.2: the list that opens a response, interim or final. */
export function checkResponse(list: HeaderList): Verdict {
  let status = 0;
  let contentLength = -1;
  let regular = false;
  for (let i = 0; i < list.length; i++) {
    const [name, value] = list[i]!;
    if (name.charCodeAt(0) === 0x3a) {
      if (regular) return malformed('a pseudo-header behind a regular one');
      if (name !== ':status' || status !== 0) {
        return malformed(`a second or unknown pseudo-header ${name}`);
      }
      if (!STATUS.test(value)) return malformed('a :status that is no number of three digits');
      status = Number(value);
      continue;
    }
    regular = true;
    if (isConnectionField(name, value)) return malformed(`a connection header ${name}`);
    if (name === 'content-length') {
      const length = parseLength(value, contentLength);
      if (length === undefined) return malformed('a wrong content-length');
      contentLength = length;
    }
  }
  if (status === 0) return malformed('no :status');
  if (status === 101) return malformed('101 is not for HTTP/2');
  const bodiless = status === 204 || status === 304;
  return { problem: undefined, contentLength, status, bodiless };
}

/** Section 8.1: trailers have no pseudo-headers. */
export function checkTrailers(list: HeaderList): Verdict {
  for (let i = 0; i < list.length; i++) {
    const [name, value] = list[i]!;
    if (name.charCodeAt(0) === 0x3a) return malformed(`a pseudo-header ${name} in trailers`);
    if (isConnectionField(name, value)) return malformed(`a connection header ${name}`);
  }
  return { problem: undefined, contentLength: -1, status: 0, bodiless: false };
}

/** The first value of a name, which must be lower case. */
export function headerValue(list: HeaderList, name: string): string | undefined {
  for (let i = 0; i < list.length; i++) if (list[i]![0] === name) return list[i]![1];
  return undefined;
}

/** As SETTINGS_MAX_HEADER_LIST_SIZE counts it (section 6.5.2). */
export function listSize(list: HeaderList): number {
  let size = 0;
  for (let i = 0; i < list.length; i++) size += list[i]![0].length + list[i]![1].length + 32;
  return size;
}
