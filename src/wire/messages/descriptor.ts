/**
 * What is known of a message besides its two functions: enough for the JSON mapping, for tests that
 * walk every message, and for guards that look for a field. Generated code fills it in.
 */
import type { Reader } from './reader.ts';
import type { Writer } from './writer.ts';

/**
 * How a field's value looks in code. `int64` and `uint64` are numbers, exact below 2^53;
 * `big-int64` and `big-uint64` are bigints.
 */
export type FieldKind =
  | 'bool'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'uint64'
  | 'big-int64'
  | 'big-uint64'
  | 'string'
  | 'bytes'
  | 'enum'
  | 'message';

/** The names of an enum and their numbers. Unknown numbers may occur: newer peers send them. */
export type EnumType = Readonly<Record<string, number>>;

export interface Field {
  readonly number: number;
  /** As in the `.proto` file, which is how the JSON gateway writes it. */
  readonly name: string;
  /** The property in code, and the second name that JSON input may use. */
  readonly local: string;
  readonly kind: FieldKind;
  readonly repeated?: true;
  /** Member of a oneof: present when not undefined, also with a zero value. */
  readonly oneof?: string;
  /** With `message`; a function because messages may refer to each other. */
  readonly message?: () => MessageType<object>;
  readonly enumeration?: EnumType;
}

/**
 * `T` is what decoding gives: every field is there, with its zero value when it was not sent
 * (messages and members of a oneof: undefined). `I` is what encoding takes: every field optional.
 */
export interface MessageType<T extends object, I extends object = object> {
  /** With its package, such as `etcdserverpb.RangeRequest`. */
  readonly name: string;
  readonly fields: readonly Field[];
  /** All zero values. */
  make(): T;
  /** Reads fields up to the reader's end into `message`, which is also the answer. */
  read(reader: Reader, message: T): T;
  /** Writes fields in front of what the writer holds. */
  write(writer: Writer, message: I): void;
}

/** How a method's messages flow. */
export type MethodKind = 'unary' | 'server-stream' | 'client-stream' | 'bidi-stream';

export interface Method {
  readonly service: string;
  readonly name: string;
  /** The gRPC path, such as `/etcdserverpb.KV/Range`. */
  readonly path: string;
  readonly kind: MethodKind;
  readonly request: MessageType<object>;
  readonly response: MessageType<object>;
  /** Paths of the JSON gateway (POST); none for some. */
  readonly json: readonly string[];
  /** The etcd release that brought it, when that was after 3.0. */
  readonly since?: string;
}
