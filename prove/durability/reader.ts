/**
 * Opens one damaged copy after the other and tells what it reads, in a process of its own: what
 * LMDB does with a damaged file may end the process.
 *
 * `checked` goes through the engine; `bare` through LMDB alone, without scrub and checksums.
 */
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import type { Bytes } from '../../src/base/bytes.ts';
import { openNative } from '../../src/engine/lmdb/native.ts';
import { openStore } from '../../src/engine/lmdb/opening.ts';
import { HoldfastError } from '../../src/model/errors.ts';

/** A digest over every key and value of the table, read by scan and by key. */
async function readChecked(path: string): Promise<string> {
  const opened = await openStore(path, { create: false, warn: () => {} });
  try {
    const hash = createHash('sha256');
    const keys: Bytes[] = [];
    opened.store.committed.scan(new Uint8Array(0), undefined, (key, value) => {
      hash.update(`${key.length} ${value.length} `).update(key).update(value);
      keys.push(key.slice());
      return true;
    });
    for (const key of keys) hash.update(opened.store.committed.get(key) ?? 'nothing');
    return hash.digest('hex');
  } finally {
    await opened.close();
  }
}

async function readBare(path: string): Promise<string> {
  const native = openNative(path);
  try {
    const hash = createHash('sha256');
    const keys: Bytes[] = [];
    for (const { key, value } of native.getRange({ start: Uint8Array.of(1) })) {
      const length = Math.max(0, value.length - 4);
      hash.update(`${key.length} ${length} `).update(key).update(value.subarray(0, length));
      keys.push(key.slice());
    }
    for (const key of keys) {
      const found = native.getBinaryFast(key);
      const length = Math.max(0, native.lastSize - 4);
      hash.update(found ? found.slice(0, length) : 'nothing');
    }
    return hash.digest('hex');
  } finally {
    await native.close();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [mode, path] = line.split(' ');
  let answer: string;
  try {
    answer = `read ${await (mode === 'bare' ? readBare : readChecked)(path!)}`;
  } catch (error) {
    answer = HoldfastError.is(error) ? `refused ${error.code}` : `failed ${String(error)}`;
  }
  process.stdout.write(`${answer.split('\n')[0]}\n`);
}
