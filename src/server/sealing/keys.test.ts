import { createPublicKey, verify } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import type { EmbeddedEngine } from '../../engine/embedded.ts';
import { openMemoryEngine } from '../../engine/memory/engine.ts';
import { HoldfastError } from '../../model/errors.ts';
import { SEAL_LIFE_MS_MAX } from '../../model/seal.ts';
import { EngineWrapper } from '../../testing/engine-wrapper.ts';
import { SEAL_KEYS_KEY, SealKeys } from './keys.ts';

const DAY_MS = 86_400_000;

class FullEngine extends EngineWrapper {
  override txn(): ReturnType<EngineWrapper['txn']> {
    return Promise.reject(new HoldfastError('no-space', 'the disk is full'));
  }
}

let engine: EmbeddedEngine;
let clock: ManualClock;
let told: string[];

beforeEach(async () => {
  clock = new ManualClock();
  engine = await openMemoryEngine({ clock });
  told = [];
});

afterEach(() => engine.close());

const server = (at: ManualClock = clock): SealKeys =>
  new SealKeys({
    engine,
    clock: at,
    rotateEveryMs: 30 * DAY_MS,
    onRotate: (keyId) => told.push(keyId),
  });

const record = async (): Promise<string> => {
  const { kvs } = await engine.range({ key: SEAL_KEYS_KEY });
  return text(kvs[0]?.value ?? new Uint8Array(0));
};
const idsOf = async (keys: SealKeys): Promise<string[]> =>
  (await keys.published()).map(({ id }) => id);

describe('the keys for seals', () => {
  test('are made when they are first needed, and are there again after a restart', async () => {
    const keys = server();
    expect(await record()).toBe('');
    const { keyId, sign } = await keys.signer();
    const [own] = await keys.published();
    expect(own!.id).toBe(keyId);
    const key = createPublicKey({
      key: { kty: 'OKP', crv: 'Ed25519', x: own!.public },
      format: 'jwk',
    });
    expect(verify(null, utf8('words'), key, sign(utf8('words')))).toBe(true);
    expect((await server().signer()).keyId).toBe(keyId);
    expect(told).toEqual([keyId]);
  });

  test('are the same for all servers, however many begin at once', async () => {
    const ids = await Promise.all(
      Array.from({ length: 8 }, async () => (await server().signer()).keyId),
    );
    expect(new Set(ids).size).toBe(1);
  });

  test('rotate when it is time, to a key that was published before', async () => {
    const keys = server();
    const [first, second] = await idsOf(keys);
    clock.advance(30 * DAY_MS - 1);
    expect((await keys.signer()).keyId).toBe(first);
    clock.advance(1);
    expect((await keys.signer()).keyId).toBe(second);
    expect((await idsOf(keys)).slice(0, 3)).toEqual([second, expect.any(String), first]);
  });

  test('rotate once when several servers find that it is time', async () => {
    const [a, b, c] = [server(), server(), server()];
    await a.signer();
    clock.advance(30 * DAY_MS);
    const ids = await Promise.all([a, b, c].map(async (keys) => (await keys.signer()).keyId));
    expect(new Set(ids).size).toBe(1);
    expect(await idsOf(a)).toHaveLength(3);
  });

  test('stay published until all that they signed has expired, with their secret gone at once', async () => {
    const keys = server();
    const first = (await keys.signer()).keyId;
    const { secret } = JSON.parse(await record()).signing;
    await keys.rotate(false);
    expect(await record()).not.toContain(secret);
    expect(await record()).toContain(first);
    clock.advance(SEAL_LIFE_MS_MAX);
    expect(await idsOf(keys)).toContain(first);
    clock.advance(DAY_MS);
    expect(await idsOf(keys)).not.toContain(first);
    await keys.rotate(false);
    expect(await record()).not.toContain(first);
  });

  test('of one server that rotated are noticed by the others with their next seal', async () => {
    const [a, b] = [server(), server()];
    const first = (await b.signer()).keyId;
    const { signing } = await a.rotate(false);
    const { keyId } = await b.signer();
    expect(keyId).toBe(signing.id);
    expect(keyId).not.toBe(first);
  });

  test('that are thrown away are published no longer, the next one included', async () => {
    const keys = server();
    const before = await idsOf(keys);
    await keys.rotate(true);
    const after = await idsOf(keys);
    expect(after).toHaveLength(2);
    expect(after.filter((id) => before.includes(id))).toEqual([]);
  });

  test('sign tokens of one era: a restored copy shares none with its original', async () => {
    const keys = server();
    const before = await idsOf(keys);
    await engine.liftEra(1);
    const { keyId, era } = await keys.signer();
    expect(era).toBe(1);
    // The key that was next may be in somebody's backup, secret and all.
    expect(before).not.toContain(keyId);
    expect(await idsOf(keys)).toContain(before[0]);
    expect(await idsOf(keys)).not.toContain(before[1]);
  });

  test('a clock that is behind neither rotates nor hides them', async () => {
    const behind = new ManualClock({ wallMs: clock.wall() - 90 * DAY_MS });
    const first = (await server().signer()).keyId;
    expect((await server(behind).signer()).keyId).toBe(first);
    expect(await idsOf(server(behind))).toContain(first);
  });

  test('go on past their time while the disk is full, but into no other era', async () => {
    const first = (await server().signer()).keyId;
    const full = new SealKeys({
      engine: new FullEngine(engine),
      clock,
      rotateEveryMs: 30 * DAY_MS,
      onRotate: () => {},
    });
    clock.advance(31 * DAY_MS);
    expect((await full.signer()).keyId).toBe(first);
    await engine.liftEra(1);
    await expect(full.signer()).rejects.toMatchObject({ code: 'no-space' });
  });

  test('however often they rotate, the record stays small', async () => {
    const keys = server();
    for (let at = 0; at < 150; at++) await keys.rotate(false);
    expect((await keys.published()).length).toBeLessThan(110);
  });
});

describe('a record that is damaged', () => {
  const DAMAGED = [
    ...['', 'null', '[]', '{}', '{"signing":1}', 'x'],
    '{"signing":{"id":"a","public":"x"},"next":{},"retired":[],"era":0,"sinceMs":0}',
    '{"signing":{"id":"a","public":"x","secret":"y"},"next":{"id":"b","public":"x","secret":"y"},"retired":[],"era":0}',
  ];

  test.each(DAMAGED)('is refused and left as it is: %j', async (value) => {
    await engine.txn({ success: [{ type: 'put', key: SEAL_KEYS_KEY, value: utf8(value) }] });
    const keys = server();
    await expect(keys.signer()).rejects.toMatchObject({ code: 'corrupt' });
    await expect(keys.published()).rejects.toMatchObject({ code: 'corrupt' });
    await expect(keys.rotate(false)).rejects.toMatchObject({ code: 'corrupt' });
    expect(await record()).toBe(value);
    // The operator's way out.
    await keys.rotate(true);
    await keys.signer();
  });

  test('with a key that is none is refused when it is to sign', async () => {
    const value = utf8(
      JSON.stringify({
        signing: { id: 'a', public: 'x', secret: 'y' },
        next: { id: 'b', public: 'x', secret: 'y' },
        retired: [],
        era: 0,
        sinceMs: clock.wall(),
      }),
    );
    await engine.txn({ success: [{ type: 'put', key: SEAL_KEYS_KEY, value }] });
    await expect(server().signer()).rejects.toMatchObject({ code: 'corrupt' });
  });
});
