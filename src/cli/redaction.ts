/**
 * What goes into a log line: values as JSON can say them, bounded, and without secrets.
 *
 * Fields are judged by their names, texts by what they look like: credentials in a URL, of HTTP, and
 * sealed tokens, which let whoever reads them pass a guard for as long as they live. A fencing token
 * is a number and no secret.
 */

const REDACTED = '[redacted]';
const SECRET_NAME =
  /pass(?:word|wd|phrase)|secret|authorization|cookie|credential|private_?key|priv-?key|api_?key/i;
const TOKEN_NAME = /token$|^seal(?:ed)?$/i;
const FENCING_TOKEN = /^\d{1,19}$/;

const SECRET_TEXTS: readonly (readonly [RegExp, string])[] = [
  // The password, and a name without one, which is as often a key.
  [/(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@]*@/gi, `$1${REDACTED}@`],
  [/\b(bearer|basic)\s+[\w.~+/=-]{4,}/gi, `$1 ${REDACTED}`],
  [
    /\b(password|passwd|secret|token|authorization)(["']?\s*[=:]\s*["']?)[^\s"',;&]+/gi,
    `$1$2${REDACTED}`,
  ],
  [/\bhf1\.[\w.-]{16,}/g, REDACTED],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, REDACTED],
];

const TEXT_LENGTH_MAX = 4_096;
const DEPTH_MAX = 4;
const ENTRIES_MAX = 64;

export function redacted(name: string, value: unknown, depth = 0): unknown {
  if (SECRET_NAME.test(name)) return REDACTED;
  if (TOKEN_NAME.test(name) && typeof value === 'string' && !FENCING_TOKEN.test(value)) {
    return REDACTED;
  }
  if (typeof value === 'string') return scrubbed(value);
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= DEPTH_MAX) return '[deeper]';
  if (value instanceof Error) return errorFields(value, depth);
  if (value instanceof Uint8Array) return `[${value.length} bytes]`;
  if (Array.isArray(value)) {
    return value.slice(0, ENTRIES_MAX).map((item) => redacted(name, item, depth + 1));
  }
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, ENTRIES_MAX)
      .map(([key, item]) => [key, redacted(key, item, depth + 1)]),
  );
}

export function scrubbed(text: string): string {
  let clean = text.length > TEXT_LENGTH_MAX ? `${text.slice(0, TEXT_LENGTH_MAX)}…` : text;
  for (const [pattern, instead] of SECRET_TEXTS) clean = clean.replace(pattern, instead);
  return clean;
}

/** As pino writes them. */
function errorFields(error: Error, depth: number): Record<string, unknown> {
  const { code } = error as { code?: unknown };
  return {
    type: error.name,
    message: scrubbed(error.message),
    stack: scrubbed(error.stack ?? ''),
    ...(typeof code === 'string' ? { code } : {}),
    ...(error.cause === undefined ? {} : { cause: redacted('cause', error.cause, depth + 1) }),
  };
}
