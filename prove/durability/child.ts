/**
 * The process under test: a scripted workload on an embedded store that tells every answer it got.
 *
 *   a INDEX REVISION   acknowledged
 *   e CODE             refused or lost; nothing after it may be acknowledged
 *   end                the script is over, the engine closed, the process alive
 *
 * `ack` says when it calls a put done: `after` its answer; or, for the controls, `early`, when it
 * was merely asked for, or `swallow`, when an error is taken for a success.
 */
import { writeSync } from 'node:fs';
import { utf8 } from '../../src/base/bytes.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import type { SyncPlace } from '../../src/engine/lmdb/pace.ts';
import { HoldfastError } from '../../src/model/errors.ts';

export interface Script {
  readonly path: string;
  readonly from: number;
  readonly count: number;
  readonly outstanding: number;
  readonly ack: 'after' | 'early' | 'swallow';
  readonly valueBytes: number;
  /** Small segments, so that a short script fills and folds many. */
  readonly segmentBytes?: number;
  /** Who waits for syncs; without a word it depends on the disk. */
  readonly syncs?: SyncPlace;
}

const script = JSON.parse(process.argv[2] ?? '{}') as Script;

/** Synchronous, so that what was told was told before anything else could happen. */
function tell(line: string): void {
  writeSync(1, `${line}\n`);
}

async function run(): Promise<void> {
  const { segmentBytes, syncs } = script;
  const engine = await openLmdbEngine(script.path, {
    retainRevisions: 0,
    quotaBytes: 0,
    ...(syncs ? { syncs } : {}),
    ...(segmentBytes ? { journal: { firstBytes: segmentBytes, mostBytes: segmentBytes } } : {}),
  });
  tell('open');
  const padding = 'x'.repeat(script.valueBytes);
  const last = script.from + script.count;
  let next = script.from;
  let failed = false;
  const worker = async (): Promise<void> => {
    while (next < last && !(failed && script.ack === 'after')) {
      const index = next++;
      const key = utf8(`key/${index % 50}`);
      const value = utf8(`${index} ${padding}`);
      if (script.ack === 'early') tell(`a ${index} 0`);
      try {
        const { header } = await engine.txn({ success: [{ type: 'put', key, value }] });
        if (script.ack !== 'early') tell(`a ${index} ${header.revision}`);
      } catch (error) {
        failed = true;
        tell(`e ${HoldfastError.from(error).code}`);
        if (script.ack === 'swallow') tell(`a ${index} 0`);
      }
    }
  };
  await Promise.all(Array.from({ length: script.outstanding }, worker));
  await engine.close();
  tell('end');
}

run().catch((error: unknown) => {
  tell(`e ${HoldfastError.from(error).code}`);
  console.error(error);
  process.exit(9);
});
