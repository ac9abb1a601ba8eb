/**
 * Messages as JSON, the way etcd's gateway maps them, from the same descriptors as the bytes.
 *
 * Out: field names of the `.proto` files, base64 for bytes, 64-bit numbers as strings, enums by
 * name, zero values left out. In: those names or lowerCamelCase, either alphabet of base64 with or
 * without padding, 64-bit numbers as strings or numbers, enums by name or number, `null` as absent,
 * unknown fields ignored. Every fault of the input is `invalid-argument`.
 */
import { type Bytes, binaryString, fromBinaryString } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { EnumType, Field, MessageType } from './descriptor.ts';
import { JsonNumber, type JsonValue, parseJson } from './json-text.ts';
import { httpStatusOf, type RpcStatus } from './status.ts';

/** Messages are records to this mapping: it goes by the descriptor alone. */
type Loose = Record<string, unknown>;

// ─── out ───────────────────────────────────────────────────────────────────────────────────────

export function toJson<I extends object>(type: MessageType<object, I>, message: I): string {
  return messageOut(type, message as Loose);
}

function messageOut(type: MessageType<object>, message: Loose): string {
  let out = '';
  for (const field of type.fields) {
    const value = message[field.local];
    if (value === undefined || (field.oneof === undefined && isZero(field, value))) continue;
    if (out !== '') out += ',';
    out += `"${field.name}":`;
    if (field.repeated) {
      out += `[${(value as unknown[]).map((item) => valueOut(field, item)).join(',')}]`;
    } else out += valueOut(field, value);
  }
  return `{${out}}`;
}

function isZero(field: Field, value: unknown): boolean {
  if (field.repeated) return (value as unknown[]).length === 0;
  if (field.kind === 'message') return false;
  if (field.kind === 'bytes') return (value as Bytes).length === 0;
  return !value;
}

function valueOut(field: Field, value: unknown): string {
  switch (field.kind) {
    case 'bool':
    case 'int32':
    case 'uint32':
      return String(value);
    case 'int64':
    case 'uint64':
    case 'big-int64':
      return `"${String(value)}"`;
    case 'big-uint64':
      return `"${BigInt.asUintN(64, value as bigint)}"`;
    case 'string':
      return JSON.stringify(value);
    case 'bytes':
      return `"${toBase64(value as Bytes)}"`;
    case 'enum':
      return enumOut(field.enumeration!, value as number);
    case 'message':
      return messageOut(field.message!(), value as Loose);
  }
}

function enumOut(names: EnumType, value: number): string {
  for (const name of Object.keys(names)) if (names[name] === value) return `"${name}"`;
  return String(value);
}

export function toBase64(bytes: Bytes): string {
  return btoa(binaryString(bytes));
}

// ─── in ────────────────────────────────────────────────────────────────────────────────────────

/** An empty text is an empty message, as a body may be left out. */
export function fromJson<T extends object>(type: MessageType<T>, text: string): T {
  return fromJsonValue(type, text.trim() === '' ? new Map() : parseJson(text));
}

export function fromJsonValue<T extends object>(type: MessageType<T>, value: JsonValue): T {
  return messageIn(type, value, type.name) as T;
}

const FIELDS = new WeakMap<MessageType<object>, ReadonlyMap<string, Field>>();

function fieldsOf(type: MessageType<object>): ReadonlyMap<string, Field> {
  let fields = FIELDS.get(type);
  if (fields === undefined) {
    const entries = type.fields.flatMap((field) => [
      [field.local, field] as const,
      [field.name, field] as const,
    ]);
    fields = new Map(entries);
    FIELDS.set(type, fields);
  }
  return fields;
}

function wrong(path: string, expected: string): HoldfastError {
  return new HoldfastError('invalid-argument', `${path}: expected ${expected}`);
}

function messageIn(type: MessageType<object>, value: JsonValue, path: string): object {
  if (!(value instanceof Map)) throw wrong(path, 'an object');
  const message = type.make() as Loose;
  const fields = fieldsOf(type);
  const chosen = new Map<string, Field>();
  for (const [name, item] of value as ReadonlyMap<string, JsonValue>) {
    const field = fields.get(name);
    if (field === undefined || item === null) continue;
    if (field.oneof !== undefined) {
      const other = chosen.get(field.oneof);
      if (other && other !== field) throw wrong(path, `only one of ${other.name}, ${field.name}`);
      chosen.set(field.oneof, field);
    }
    const place = `${path}.${field.name}`;
    message[field.local] = field.repeated
      ? listIn(field, item, place)
      : valueIn(field, item, place);
  }
  return message;
}

function listIn(field: Field, value: JsonValue, path: string): unknown[] {
  if (!Array.isArray(value)) throw wrong(path, 'a list');
  return value.map((item: JsonValue) => valueIn(field, item, path));
}

function valueIn(field: Field, value: JsonValue, path: string): unknown {
  switch (field.kind) {
    case 'bool':
      if (typeof value !== 'boolean') throw wrong(path, 'true or false');
      return value;
    case 'string':
      if (typeof value !== 'string') throw wrong(path, 'a string');
      return value.replace(LONE_SURROGATES, '\ufffd');
    case 'bytes':
      return fromBase64(value, path);
    case 'enum':
      return enumIn(field.enumeration!, value, path);
    case 'message':
      return messageIn(field.message!(), value, path);
    case 'int32':
      return Number(integerIn(value, -(2n ** 31n), 2n ** 31n - 1n, path));
    case 'uint32':
      return Number(integerIn(value, 0n, 2n ** 32n - 1n, path));
    case 'int64':
      return clamped(integerIn(value, INT64_MIN, INT64_MAX, path));
    case 'uint64':
      return clamped(integerIn(value, 0n, UINT64_MAX, path));
    case 'big-int64':
      return integerIn(value, INT64_MIN, INT64_MAX, path);
    case 'big-uint64':
      return integerIn(value, 0n, UINT64_MAX, path);
  }
}

const LONE_SURROGATES = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
const UINT64_MAX = 2n ** 64n - 1n;
const SAFE_MAX = BigInt(Number.MAX_SAFE_INTEGER);

/** As the reader of bytes does it, and for its reasons. */
function clamped(value: bigint): number {
  return Number(value > SAFE_MAX ? SAFE_MAX : value < -SAFE_MAX ? -SAFE_MAX : value);
}

const INTEGER = /^-?[0-9]{1,20}$/;
/** `1.0` and `1e3` are whole numbers too; they come as doubles. */
const DECIMAL = /^-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?$/;

function integerIn(value: JsonValue, min: bigint, max: bigint, path: string): bigint {
  const text = value instanceof JsonNumber ? value.text : value;
  if (typeof text !== 'string') throw wrong(path, 'a whole number');
  let number: bigint;
  if (INTEGER.test(text)) number = BigInt(text);
  else {
    const double = DECIMAL.test(text) ? Number(text) : Number.NaN;
    if (!Number.isInteger(double)) throw wrong(path, 'a whole number');
    number = BigInt(double);
  }
  if (number < min || number > max) throw wrong(path, `a number from ${min} to ${max}`);
  return number;
}

function enumIn(names: EnumType, value: JsonValue, path: string): number {
  if (value instanceof JsonNumber) {
    return Number(integerIn(value, -(2n ** 31n), 2n ** 31n - 1n, path));
  }
  if (typeof value !== 'string' || !Object.hasOwn(names, value)) {
    throw wrong(path, `one of ${Object.keys(names).join(', ')}`);
  }
  return names[value]!;
}

const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;

function fromBase64(value: JsonValue, path: string): Bytes {
  if (typeof value !== 'string' || !BASE64.test(value)) throw wrong(path, 'base64');
  try {
    return fromBinaryString(atob(value.replaceAll('-', '+').replaceAll('_', '/')));
  } catch {
    throw wrong(path, 'base64');
  }
}

// ─── errors ────────────────────────────────────────────────────────────────────────────────────

/** The body of a failed call. Old clients read `error`, new ones `code` and `message`. */
export function errorJson(status: RpcStatus): string {
  const { code, message } = status;
  return JSON.stringify({ error: message, code, message });
}

/** One message of a streaming answer. */
export function streamResultJson(message: string): string {
  return `{"result":${message}}\n`;
}

/** What ends a streaming answer that failed after it had begun. */
export function streamErrorJson(status: RpcStatus, httpStatus: string): string {
  const { code, message } = status;
  return `${JSON.stringify({
    error: {
      grpc_code: code,
      http_code: httpStatusOf(code),
      message,
      http_status: httpStatus,
      code,
    },
  })}\n`;
}
