/** The process behind `claim.ts`: one compare-and-set of the owner epoch, and the answer. */
import { HoldfastError } from '../../model/errors.ts';
import type { ClaimAnswer, ClaimTask } from './claim.ts';
import { decodeHead, HEAD_KEY } from './format.ts';
import { type Native, openNative } from './native.ts';
import { readRecord } from './reader.ts';
import { Tree } from './tree.ts';

function claim(native: Native, { owner, ...seen }: ClaimTask): ClaimAnswer {
  const bytes = readRecord(native, HEAD_KEY);
  if (!bytes) return 'taken';
  try {
    Tree.claim(native, seen, decodeHead(bytes), owner);
    return 'claimed';
  } catch (error) {
    if (HoldfastError.is(error, 'store-in-use')) return 'taken';
    throw error;
  }
}

const say = (answer: ClaimAnswer): void => void process.stdout.write(answer);

const task = JSON.parse(process.argv.at(-1)!) as ClaimTask;
say('asking ');
const native = openNative(task.path);
say(claim(native, task));
await native.close();
