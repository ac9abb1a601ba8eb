/**
 * The refusals of users, roles and permissions. Clients recognise them by their text, so they are
 * named by it; code and kind of each stand in the wire's one table.
 */
import type { HoldfastError } from '../../model/errors.ts';
import { rpcError, STATUS, type StatusName } from '../../wire/messages/status.ts';

const PREFIX = 'etcdserver: ';
const NAMES = new Map(
  Object.entries(STATUS).map(([name, { message }]) => [message, name as StatusName]),
);

export function refusal(text: string): HoldfastError {
  const name = NAMES.get(PREFIX + text);
  if (name === undefined) throw new Error(`"${text}" is not a refusal that clients know`);
  return rpcError(name);
}
