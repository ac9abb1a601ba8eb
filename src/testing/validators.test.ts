import { describe, expect, it } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import { prefixRange } from '../model/range.ts';
import type { KeyValue } from '../model/transaction.ts';
import type { Event, WatchBatch, WatchRequest } from '../model/watch.ts';
import { type Change, replayOf, validateWatch } from './validators.ts';

const kv = (key: string, mod: number, create: number, version: number): KeyValue => ({
  key: utf8(key),
  value: utf8(`${key}${mod}`),
  createRevision: create,
  modRevision: mod,
  version,
  lease: 0n,
});
const gone = (key: string, mod: number): KeyValue => ({
  ...kv(key, mod, 0, 0),
  value: utf8(''),
});

const a2 = kv('p/a', 2, 2, 1);
const b3 = kv('p/b', 3, 3, 1);
const a4 = kv('p/a', 4, 2, 2);
const a5 = gone('p/a', 5);
const a6 = kv('p/a', 6, 6, 1);
const other = kv('q', 4, 4, 1);

/** Revision 4 changes two keys. */
const replay: readonly Change[] = [
  { type: 'put', kv: a2, before: undefined },
  { type: 'put', kv: b3, before: undefined },
  { type: 'put', kv: a4, before: a2 },
  { type: 'put', kv: other, before: undefined },
  { type: 'delete', kv: a5, before: a4 },
  { type: 'put', kv: a6, before: undefined },
];

const put = (pair: KeyValue, prevKv?: KeyValue): Event => ({
  type: 'put',
  kv: pair,
  ...(prevKv && { prevKv }),
});
const remove = (pair: KeyValue): Event => ({ type: 'delete', kv: pair });
const batch = (revision: number, ...events: Event[]): WatchBatch => ({
  header: { revision, era: 0 },
  events,
});
const request: WatchRequest = { ...prefixRange(utf8('p/')), startRevision: 2 };

function broken(batches: readonly WatchBatch[], asked: WatchRequest = request): string[] {
  return validateWatch({ request: asked, batches }, replay).map(({ validator }) => validator);
}

const whole = [put(a2), put(b3), put(a4), remove(a5), put(a6)];

describe('the watch validators', () => {
  it('accept what a right watch tells, in any cut between revisions', () => {
    expect(broken([])).toEqual([]);
    expect(broken([batch(6, ...whole)])).toEqual([]);
    expect(broken(whole.map((event) => batch(event.kv.modRevision, event)))).toEqual([]);
    expect(broken([batch(3, ...whole.slice(0, 2)), batch(3), batch(9, ...whole.slice(2))])).toEqual(
      [],
    );
  });

  it('filter: an event outside the range, or one that was filtered out', () => {
    expect(broken([batch(4, put(a2), put(b3), put(a4), put(other))])).toContain('filter');
    expect(broken([batch(6, ...whole)], { ...request, noDelete: true })).toContain('filter');
    const puts = whole.filter(({ type }) => type === 'put');
    expect(broken([batch(6, ...puts)], { ...request, noDelete: true })).toEqual([]);
  });

  it('ordered: a revision that falls', () => {
    expect(broken([batch(3, put(b3), put(a2))])).toContain('ordered');
  });

  it('unique: one change told twice', () => {
    expect(broken([batch(2, put(a2)), batch(3, put(a2), put(b3))])).toContain('unique');
  });

  it('atomic: one revision in two batches', () => {
    const all = { ...prefixRange(utf8('')), startRevision: 2 };
    const split = [batch(4, put(a2), put(b3), put(a4)), batch(4, put(other))];
    expect(broken(split, all)).toContain('atomic');
    expect(broken([batch(4, put(a2), put(b3), put(a4), put(other))], all)).toEqual([]);
  });

  it('bookmarkable: events behind a mark, a mark that falls, a mark before the start', () => {
    expect(broken([batch(3), batch(4, put(a2), put(b3), put(a4))])).toContain('bookmarkable');
    expect(broken([batch(3, put(a2), put(b3)), batch(2)])).toContain('bookmarkable');
    expect(broken([batch(1)], { ...request, startRevision: 5 })).toContain('bookmarkable');
    expect(broken([batch(4)], { ...request, startRevision: 5 })).toEqual([]);
    expect(broken([batch(2, put(a2), put(b3))])).toContain('bookmarkable');
  });

  it('resumable: a first event that is not the first one due', () => {
    expect(broken([batch(3, put(b3))])).toContain('resumable');
  });

  it('isCreate: a creation that is none, and one that is not marked', () => {
    const renewed = { ...a4, createRevision: 4, version: 1 };
    expect(broken([batch(4, put(a2), put(b3), put(renewed))])).toContain('isCreate');
    const continued = { ...a6, createRevision: 2, version: 3 };
    expect(broken([batch(6, ...whole.slice(0, 4), put(continued))])).toContain('isCreate');
    expect(broken([batch(2, put({ ...a2, version: 2 }))])).toContain('isCreate');
  });

  it('reliable: a change left out, at the end too, or one with another value', () => {
    expect(broken([batch(4, put(a2), put(a4))])).toContain('reliable');
    expect(broken([batch(6, ...whole.slice(0, 4))])).toContain('reliable');
    expect(broken([batch(2, put({ ...a2, value: utf8('x') }))])).toContain('reliable');
    expect(broken([batch(5, ...whole.slice(0, 3), put(a5))])).toContain('reliable');
  });

  it('prevKv: a previous pair that did not stand there, or that nobody asked for', () => {
    const asked = { ...request, prevKv: true };
    const first = [put(a2), put(b3)];
    expect(broken([batch(4, ...first, put(a4, a2))], asked)).toEqual([]);
    expect(broken([batch(4, ...first, put(a4))], asked)).toEqual([]);
    expect(broken([batch(4, ...first, put(a4, a4))], asked)).toContain('prevKv');
    expect(broken([batch(2, put(a2, b3))], asked)).toContain('prevKv');
    expect(broken([batch(4, ...first, put(a4, a2))])).toContain('prevKv');
  });

  it('a replay can be had from a watch that saw everything', () => {
    const seen = replayOf(whole);
    expect(seen.map(({ before }) => before)).toEqual([undefined, undefined, a2, a4, undefined]);
  });
});
