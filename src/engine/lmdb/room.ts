/** What the disk must have left before it is asked for more. */
import { statfsSync } from 'node:fs';

/** Throws `ENOSPC` where `bytes` are not left, before anything is tried. */
export function ensureRoom(directory: string, bytes: number): void {
  const { blocks, bavail, bsize } = statfsSync(directory);
  const left = bavail * bsize;
  // Some file systems do not say.
  if (blocks === 0 || left >= bytes) return;
  const error = new Error(`no space: ${left} bytes are left, and ${bytes} may be needed`);
  throw Object.assign(error, { code: 'ENOSPC' });
}
