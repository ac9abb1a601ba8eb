import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import type { HoldfastError } from '../model/errors.ts';
import { writeSealKeys } from '../model/seal-keys.ts';
import { type FetchSealKeysOptions, fetchSealKeys } from './fetched-seal-keys.ts';
import { Gate } from './gate.ts';
import { generateSealKey, type SealKey, sealKeySet, sealToken } from './seal.ts';

const URL = 'http://127.0.0.1:2379';
const [one, two] = [generateSealKey('one'), generateSealKey('two')];

/** An authority as a guard sees it: keys at an address, or nobody there. */
class Authority {
  readonly clock = new ManualClock();
  readonly asked: string[] = [];
  keys: readonly SealKey[] = [one];
  away = false;
  respond: () => Response | Promise<Response> = () => new Response(writeSealKeys(this.keys));

  readonly fetch = async (input: unknown): Promise<Response> => {
    this.asked.push(String(input));
    if (this.away) throw new TypeError('fetch failed');
    return await this.respond();
  };

  guard(options: FetchSealKeysOptions = {}, url = URL): ReturnType<typeof fetchSealKeys> {
    const fetch = this.fetch as typeof globalThis.fetch;
    return fetchSealKeys(url, { fetch, clock: this.clock, ...options });
  }
}

const sealBy = (key: SealKey): string =>
  sealToken(sealKeySet([key]), {
    token: 34n,
    tenant: '',
    resource: 'r',
    holder: 'h',
    expiresAtMs: 1_750_000_010_000,
  });

async function codeOf(run: Promise<unknown>): Promise<string> {
  return await run.then(
    () => 'fine',
    ({ code, details }: HoldfastError) => details.seal ?? code,
  );
}

describe('fetched keys', () => {
  it('come from the well-known address, or from the one that is given', async () => {
    const authority = new Authority();
    await authority.guard();
    await authority.guard({}, 'https://keys.example/ours');
    expect(authority.asked).toEqual([
      `${URL}/.well-known/holdfast-keys`,
      'https://keys.example/ours',
    ]);
  });

  it('are not taken from where anybody could put in his own', async () => {
    const authority = new Authority();
    for (const url of ['http://10.0.0.1:2379', 'http://localhost.example/', 'ftp://x', 'x', '']) {
      expect([url, await codeOf(authority.guard({}, url))]).toEqual([url, 'invalid-argument']);
    }
    await authority.guard({ insecure: true }, 'http://10.0.0.1:2379');
    for (const url of ['http://localhost:1', 'http://127.0.0.2', 'http://[::1]:2379']) {
      await authority.guard({}, url);
    }
  });

  it('are fetched again for a key that is not known, once however many ask', async () => {
    const authority = new Authority();
    const keys = await authority.guard();
    authority.keys = [two, one];
    authority.clock.advance(5_000);
    await Promise.all(Array.from({ length: 50 }, () => keys.ready(sealBy(two))));
    expect([...keys.verifiers.keys()]).toEqual(['two', 'one']);
    expect(authority.asked).toHaveLength(2);
  });

  it('are fetched at most once in a while, whatever is presented', async () => {
    const authority = new Authority();
    const keys = await authority.guard();
    for (let at = 0; at < 1_000; at++) {
      authority.clock.advance(20);
      await keys.ready(sealBy(generateSealKey(`invented-${at}`)));
    }
    expect(authority.asked.length).toBeLessThanOrEqual(1 + 20_000 / 5_000);
    await keys.ready('hf1');
    await keys.ready('no seal at all');
  });

  it('that are old are fetched before they are used; one that was thrown away counts no more', async () => {
    const authority = new Authority();
    authority.keys = [one, two];
    const keys = await authority.guard({ maxAgeMs: 60_000 });
    authority.keys = [two];
    authority.clock.advance(59_999);
    await keys.ready(sealBy(one));
    expect(keys.verifiers.has('one')).toBe(true);
    authority.clock.advance(1);
    await keys.ready(sealBy(one));
    expect(keys.verifiers.has('one')).toBe(false);
  });

  it('are kept as long as the authority says, within reason', async () => {
    const authority = new Authority();
    for (const [header, ageMs] of [
      ['public, max-age=10', 10_000],
      ['max-age=99999999', 3_600_000],
      ['no-cache', 300_000],
      [undefined, 300_000],
    ] as const) {
      const headers = header === undefined ? {} : { 'cache-control': header };
      authority.respond = () => new Response(writeSealKeys(authority.keys), { headers });
      const keys = await authority.guard();
      authority.asked.length = 0;
      authority.clock.advance(ageMs - 1);
      await keys.ready(sealBy(one));
      expect([header, authority.asked.length]).toEqual([header, 0]);
      authority.clock.advance(1);
      await keys.ready(sealBy(one));
      expect([header, authority.asked.length]).toEqual([header, 1]);
    }
  });

  it('do while the authority is away, for a bounded time; an unknown key cannot be judged then', async () => {
    const authority = new Authority();
    const keys = await authority.guard({ keepMs: 3_600_000 });
    authority.away = true;
    authority.clock.advance(1_800_000);
    expect(await codeOf(keys.ready(sealBy(one)))).toBe('fine');
    expect(await codeOf(keys.ready(sealBy(two)))).toBe('unavailable');
    authority.clock.advance(1_800_000);
    expect(await codeOf(keys.ready(sealBy(one)))).toBe('unavailable');
    authority.away = false;
    authority.clock.advance(5_000);
    expect(await codeOf(keys.ready(sealBy(one)))).toBe('fine');
  });

  it('are needed to begin, unless there is a copy', async () => {
    const authority = new Authority();
    authority.away = true;
    expect(await codeOf(authority.guard())).toBe('unavailable');
    const keys = await authority.guard({ initial: [one] });
    await keys.ready(sealBy(one));
    expect(keys.verifiers.has('one')).toBe(true);
  });

  it('are not taken from an answer that is no set of keys, and one that never ends is left', async () => {
    const authority = new Authority();
    const answers: (() => Response | Promise<Response>)[] = [
      () => new Response('no', { status: 404 }),
      () => new Response('<html>'),
      () => new Response('{}'),
      () => new Response(' '.repeat(100_000)),
      () => Promise.reject(new TypeError('redirected')),
    ];
    for (const respond of answers) {
      authority.respond = respond;
      expect(await codeOf(authority.guard())).toBe('unavailable');
    }
    const endless = fetchSealKeys(URL, {
      clock: authority.clock,
      fetch: ((_url: unknown, { signal }: { signal: AbortSignal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
        })) as unknown as typeof globalThis.fetch,
    });
    authority.clock.advance(2_000);
    expect(await codeOf(endless)).toBe('unavailable');
    expect(authority.clock.pending).toBe(0);
  });
});

describe('a gate with fetched keys', () => {
  const read = async (gate: Gate, presented: string | { token: bigint; seal?: string }) => {
    await gate.ready(presented);
    return gate.read(presented, 'r').token;
  };

  it('gets the key of a seal before it judges it', async () => {
    const authority = new Authority();
    const keys = await authority.guard();
    const gate = new Gate('test', { clock: authority.clock, seal: { keys, required: true } });
    authority.keys = [two];
    authority.clock.advance(5_000);
    expect(await read(gate, sealBy(two))).toBe(34n);
    expect(await codeOf(read(gate, { token: 34n, seal: sealBy(one) }))).toBe('unknown-key');
    expect(await codeOf(read(gate, { token: 34n }))).toBe('missing');
    expect(await codeOf(read(gate, { token: 35n, seal: sealBy(two) }))).toBe('other-token');
  });

  it('with keys of its own asks nobody', async () => {
    const gate = new Gate('test', {
      clock: new ManualClock(),
      seal: { keys: sealKeySet([one]), required: true },
    });
    expect(await read(gate, sealBy(one))).toBe(34n);
  });

  it('takes the seals of no tenant unless it names one', async () => {
    const claims = { token: 3n, resource: 'r', holder: 'h', expiresAtMs: 1_750_000_010_000 };
    const of = (tenant: string): string => sealToken(sealKeySet([one]), { ...claims, tenant });
    const rule = { keys: sealKeySet([one]), required: true };
    const clock = new ManualClock();
    expect(await codeOf(read(new Gate('test', { clock, seal: rule }), of('shop')))).toBe(
      'other-tenant',
    );
    const shop = new Gate('test', { clock, seal: { ...rule, tenant: 'shop' } });
    expect(await read(shop, of('shop'))).toBe(3n);
    expect(await codeOf(read(shop, of('')))).toBe('other-tenant');
  });
});
