/**
 * A key or range followed for as long as wanted: first how it stands, then every change, and after
 * a disturbance (lost connection, compaction, overrun) again how it stands. Nothing is missed and
 * nothing goes back: an answer older than what was already told is asked for again.
 */
import { abortable } from '../base/abort.ts';
import type { Engine } from '../engine/contract.ts';
import { HoldfastError } from '../model/errors.ts';
import type { KeyRange } from '../model/range.ts';
import type { Header, KeyValue, Revision } from '../model/transaction.ts';
import type { Event, Watch } from '../model/watch.ts';
import { type Authority, backOff, mayPass, mayResume } from './authority.ts';

export type Followed =
  | { readonly type: 'state'; readonly header: Header; readonly kvs: readonly KeyValue[] }
  | { readonly type: 'events'; readonly header: Header; readonly events: readonly Event[] };

/**
 * Ends without an error only when `signal` aborts. `onWatch` is given each watch that is opened,
 * to ask it for progress; then there are also `events` without events.
 */
export async function* follow(
  authority: Authority,
  range: KeyRange,
  signal: AbortSignal,
  onWatch?: (watch: Watch) => void,
): AsyncGenerator<Followed, void, undefined> {
  const { engine } = authority;
  let told: Header = { revision: 0, era: 0 };
  let resumeAt: Revision | undefined;
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      if (resumeAt === undefined) {
        const state = await abortable(engine.range(range), signal);
        if (olderThan(state.header, told)) {
          await backOff(authority, attempt);
          continue;
        }
        told = state.header;
        resumeAt = state.header.revision + 1;
        yield { type: 'state', header: state.header, kvs: state.kvs };
      }
      for await (const batch of watching(engine, range, resumeAt, signal, onWatch)) {
        attempt = 0;
        told = batch.header;
        resumeAt = batch.header.revision + 1;
        yield { type: 'events', header: batch.header, events: batch.events };
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!mayResume(error)) throw error;
      if (!mayPass(error)) resumeAt = undefined;
    }
    if (!signal.aborted) await backOff(authority, attempt);
  }
}

function olderThan(header: Header, told: Header): boolean {
  return header.era < told.era || (header.era === told.era && header.revision < told.revision);
}

async function* watching(
  engine: Engine,
  range: KeyRange,
  startRevision: Revision,
  signal: AbortSignal,
  onWatch: ((watch: Watch) => void) | undefined,
): AsyncGenerator<{ readonly header: Header; readonly events: readonly Event[] }, void, undefined> {
  const watch: Watch = engine.watch({
    ...range,
    startRevision,
    progressNotify: onWatch !== undefined,
  });
  // The refusal of a watch arrives while iterating as well.
  watch.created.catch(() => {});
  onWatch?.(watch);
  const iterator = watch[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await abortable(iterator.next(), signal);
      if (step.done) throw new HoldfastError('unavailable', 'the watch ended');
      yield step.value;
    }
  } finally {
    await watch.close().catch(() => {});
  }
}
