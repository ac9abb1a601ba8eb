/** Making directories, on this machine's file systems. */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes the directory and what is missing above it. Node.js can do that, too, but goes on for ever
 * where the system says that something is missing although the directory above is there, as below
 * `/proc` and on a file system that is mounted read-only.
 */
export function makeDirectory(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && statSync(path).isDirectory()) return;
    const above = dirname(path);
    if (code !== 'ENOENT' || existsSync(above)) throw error;
    makeDirectory(above, mode);
    makeDirectory(path, mode);
  }
}
