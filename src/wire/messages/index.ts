/** The etcd v3 messages and what belongs to them; see the header of each file. */
export { decode, encode, encodeFramed } from './codec.ts';
export type { EnumType, Field, FieldKind, MessageType, Method, MethodKind } from './descriptor.ts';
export {
  errorJson,
  fromJson,
  fromJsonValue,
  streamErrorJson,
  streamResultJson,
  toBase64,
  toJson,
} from './json.ts';
export { JsonNumber, JsonObjects, type JsonValue, jsonText, parseJson } from './json-text.ts';
export { METHOD_BY_JSON_PATH, METHOD_BY_PATH, METHODS } from './services.ts';
export {
  attachedStatus,
  type CallEffect,
  errorOf,
  httpStatusOf,
  plainRpcError,
  type RpcStatus,
  rpcError,
  STATUS,
  type StatusName,
  statusOf,
  watchCancelError,
} from './status.ts';
