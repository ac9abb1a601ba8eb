/** The thread behind `folder.ts`: waits for marks, and folds the journal up to each. */
import { parentPort, workerData } from 'node:worker_threads';
import { leaveDescriptors } from '../../base/lmdb-note.ts';
import { HoldfastError } from '../../model/errors.ts';
import { fencedOut, isNoSpace } from './failures.ts';
import { fold } from './fold.ts';
import { BUSY, type FolderAnswer, type FolderTask, WRITING } from './folder.ts';
import type { JournalMark } from './format.ts';
import { openNative } from './native.ts';
import { SegmentMemory } from './segment-memory.ts';
import { Tree } from './tree.ts';

const { path, ownerEpoch, busy } = workerData as FolderTask;
const state = new Int32Array(busy);
const memory = new SegmentMemory();
const onWriting = (): void => {
  Atomics.store(state, WRITING, 1);
};
leaveDescriptors();
const native = openNative(path);

function answerTo(next: JournalMark): FolderAnswer {
  try {
    // Joined anew each time: after a failed commit nothing of the former one counts.
    const tree = Tree.join(native, ownerEpoch);
    fold(tree, path, next, { onWriting, memory });
    return { sequence: tree.head.sequence };
  } catch (error) {
    const cause = isReplaced() ? fencedOut() : error;
    const { code, message, outcome } = HoldfastError.from(cause);
    return { failed: { code, message, outcome, noSpace: isNoSpace(cause) } };
  } finally {
    Atomics.store(state, WRITING, 0);
    Atomics.store(state, BUSY, 0);
    Atomics.notify(state, BUSY);
  }
}

/** Whoever took the store over removes segments under a late reader: that is no damage. */
function isReplaced(): boolean {
  try {
    Tree.join(native, ownerEpoch);
    return false;
  } catch (error) {
    return HoldfastError.is(error) && error.message === fencedOut().message;
  }
}

parentPort!.on('message', (message: JournalMark | 'close') => {
  if (message === 'close') void native.close().then(() => parentPort!.close());
  else parentPort!.postMessage(answerTo(message));
});
