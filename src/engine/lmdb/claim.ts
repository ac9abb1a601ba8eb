/**
 * Claiming a directory whose owner lives but stands still. It may hold LMDB's write lock, and whoever
 * asks for that lock then waits in the kernel for as long as it stands. So another process asks,
 * which can be ended; ours goes on meanwhile.
 */
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { systemClock } from '../../base/system.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Head, OwnerRecord } from './format.ts';

/** What the process that claims is told. */
export interface ClaimTask {
  readonly path: string;
  /** The head that is to be replaced: nobody has committed since. */
  readonly sequence: number;
  readonly ownerEpoch: number;
  readonly owner: OwnerRecord;
}

/** What it says: it asks for the lock now; then that the claim stands, or somebody was faster. */
export type ClaimAnswer = 'asking ' | 'claimed' | 'taken';

/** To start a process. */
const START_MS_MAX = 10_000;
/** To have one small commit synced; beyond it the lock is surely held. */
const LOCK_MS_MAX = 1_000;

/**
 * Makes `owner` the owner after `seen`. Throws `store-in-use` when somebody was faster, and
 * `unavailable` when the lock did not come free in time, or (with a cause) no process could ask. A
 * claim counts only if it was answered: then it is on the disk, and every look of the former owner
 * finds it.
 */
export async function claimElsewhere(
  path: string,
  seen: Pick<Head, 'sequence' | 'ownerEpoch'>,
  owner: OwnerRecord,
): Promise<void> {
  const { sequence, ownerEpoch } = seen;
  const answer = await run({ path, sequence, ownerEpoch, owner });
  if (answer === 'claimed') return;
  if (answer === 'taken') {
    throw new HoldfastError('store-in-use', 'another process claimed the store just now');
  }
  if (answer === 'held') {
    throw new HoldfastError(
      'unavailable',
      `the owner of ${path} stands still in the middle of a write of the tree: nobody can take ` +
        'over before it goes on or ends',
    );
  }
  const message = `no process could claim ${path} from an owner that stands still: ${answer.message}`;
  throw new HoldfastError('unavailable', message, { cause: answer });
}

/** The answer; or that the lock did not come free; or why nothing is known. */
function run(task: ClaimTask): Promise<'claimed' | 'taken' | 'held' | Error> {
  const options = { timeout: START_MS_MAX, killSignal: 'SIGKILL' } as const;
  const command = [...program(), JSON.stringify(task)];
  return new Promise((resolve) => {
    let held = false;
    let cancel = (): void => {};
    const child = execFile(process.execPath, command, options, (error, said) => {
      cancel();
      const [, answer] = said.split(' ');
      if (answer === 'claimed' || answer === 'taken') resolve(answer);
      else if (held) resolve('held');
      else resolve(error ?? new Error(`it answered ${JSON.stringify(said)}`));
    });
    child.stdout?.once('data', () => {
      cancel = systemClock.wakeAt(systemClock.now() + LOCK_MS_MAX, () => {
        held = child.kill('SIGKILL');
      });
    });
  });
}

function program(): string[] {
  if (!import.meta.url.endsWith('.ts')) {
    return [fileURLToPath(new URL('./claim-process.js', import.meta.url))];
  }
  // From sources the process first needs what turns TypeScript into JavaScript.
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
  return ['--import', tsx, fileURLToPath(new URL('./claim-process.ts', import.meta.url))];
}
