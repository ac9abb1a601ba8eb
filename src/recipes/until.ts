/** Waiting for a state of some keys: read, then watched, until the condition holds. */
import { linkAbort } from '../base/abort.ts';
import { binaryString } from '../base/bytes.ts';
import { abortError, HoldfastError } from '../model/errors.ts';
import type { KeyRange } from '../model/range.ts';
import type { KeyValue } from '../model/transaction.ts';
import type { Authority } from './authority.ts';
import { type Duration, milliseconds } from './duration.ts';
import { type Followed, follow } from './follow.ts';

export interface WaitOptions {
  /** Give up with `deadline-exceeded` after this; absent: wait as long as it takes. */
  readonly wait?: Duration | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type Keys = ReadonlyMap<string, KeyValue>;

/** Keeps a map in step with what is followed; keys by `binaryString`. */
export function applyTo(keys: Map<string, KeyValue>, change: Followed): void {
  if (change.type === 'state') {
    keys.clear();
    for (const kv of change.kvs) keys.set(binaryString(kv.key), kv);
    return;
  }
  for (const { type, kv } of change.events) {
    if (type === 'delete') keys.delete(binaryString(kv.key));
    else keys.set(binaryString(kv.key), kv);
  }
}

export async function until(
  authority: Authority,
  range: KeyRange,
  holds: (keys: Keys) => boolean,
  options: WaitOptions = {},
): Promise<void> {
  const { clock } = authority;
  const link = linkAbort(options.signal);
  const cancel =
    options.wait === undefined
      ? undefined
      : clock.wakeAt(clock.now() + milliseconds(options.wait, 'wait'), () =>
          link.controller.abort(
            new HoldfastError('deadline-exceeded', `not within ${options.wait} ms`),
          ),
        );
  const keys = new Map<string, KeyValue>();
  try {
    for await (const change of follow(authority, range, link.signal)) {
      applyTo(keys, change);
      if (holds(keys)) return;
    }
    throw abortError(link.signal, 'rejected');
  } finally {
    cancel?.();
    link.unlink();
  }
}
