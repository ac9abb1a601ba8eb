/**
 * LMDB is not asked for a commit that the disk may have no room for. What it writes about a refused
 * page it writes past the end of its buffer, which can end the process; an error of ours cannot.
 */
import { statfsSync } from 'node:fs';
import type { Native } from './native.ts';

/** The paths to what is changed, the head, and the pages that become free. */
const SLACK_BYTES = 2 ** 18;

/** Throws `ENOSPC` when `bytes` of changes may not find room: in the file, or on the disk for it. */
export function ensureRoom(native: Native, bytes: number): void {
  const stats = native.getStats();
  const used = stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages;
  const freeBytes = (stats.lastPageNumber + 1 - used) * stats.pageSize;
  // A page is at least half full.
  const needed = 2 * bytes + SLACK_BYTES - freeBytes;
  if (needed <= 0) return;
  const { blocks, bavail, bsize } = statfsSync(native.directory);
  const left = bavail * bsize;
  // Some file systems do not say.
  if (blocks === 0 || left >= needed) return;
  const error = new Error(`no space: ${left} bytes are left, and ${needed} may be needed`);
  throw Object.assign(error, { code: 'ENOSPC' });
}
