/**
 * The directory of a store: where its files stand, on what file system, with which permissions.
 *
 *   data.mdb, lock.mdb   LMDB's
 *   era                  the highest era this directory has seen; survives a restore over it
 *   owner-….sock         sign of life of the owner, see owner.ts
 *   shared-….sock        the same of one that serves others
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { utf8 } from '../../base/bytes.ts';
import { crc32c } from '../../base/checksum.ts';
import { makeDirectory } from '../../base/directories.ts';
import { LOCK_FILE } from '../../base/lmdb-note.ts';
import { HoldfastError } from '../../model/errors.ts';
import { ERA_MAX } from '../../model/token.ts';
import { openingFailed } from './failures.ts';

export const DATA_FILE = 'data.mdb';
const ERA_FILE = 'era';

/** Network and cluster file systems by their magic number: locks and maps do not reach across. */
const UNSUITABLE: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB2'],
  [0x01021997, '9P'],
  [0x00c36400, 'Ceph'],
  [0x0bd00bd0, 'Lustre'],
  [0x5346414f, 'AFS'],
  [0x6b414653, 'AFS'],
  [0x01161970, 'GFS2'],
  [0x7461636f, 'OCFS2'],
  [0x73757245, 'Coda'],
  [0x564c, 'NCP'],
]);
const FUSE = 0x65735546;

export interface DirectoryOptions {
  /** Make a store where there is none. */
  readonly create: boolean;
  /** Accept FUSE, whose promises depend on the program behind it. */
  readonly allowFuse: boolean;
  /** Hears what was put right. */
  readonly warn: (message: string) => void;
}

/** Makes the directory ready and private; throws when no store may stand there. */
export function prepareDirectory(path: string, options: DirectoryOptions): void {
  try {
    prepare(path, options);
  } catch (error) {
    throw openingFailed(path, error);
  }
}

function prepare(path: string, options: DirectoryOptions): void {
  if (path.includes('\0')) {
    throw new HoldfastError('invalid-argument', 'the path of a store has no zero byte in it');
  }
  if (existsSync(path)) {
    if (!statSync(path).isDirectory()) {
      throw new HoldfastError('not-a-store', `${path} is a file; a store is a directory`);
    }
  } else {
    if (!options.create) throw notFound(path);
    makeDirectory(path, 0o700);
    syncDirectory(dirname(path));
  }
  checkFileSystem(path, options.allowFuse);
  if (!existsSync(join(path, DATA_FILE))) {
    if (readEra(path) !== undefined) throw dataGone(path);
    if (!options.create) throw notFound(path);
  }
  restrict(path, 0o700, options.warn);
  for (const name of [DATA_FILE, LOCK_FILE, ERA_FILE]) {
    if (existsSync(join(path, name))) restrict(join(path, name), 0o600, options.warn);
  }
}

function notFound(path: string): HoldfastError {
  return new HoldfastError(
    'store-not-found',
    `there is no store at ${path}; check the path, or allow its creation`,
  );
}

function dataGone(path: string): HoldfastError {
  return new HoldfastError(
    'store-truncated',
    `the data file of the store at ${path} is gone, but its era file is there: restore a backup, ` +
      'or remove the file "era" to begin a new history whose tokens begin again',
  );
}

/** Throws on a file system known to be shared between machines. */
export function checkFileSystem(path: string, allowFuse: boolean, type?: number): void {
  const magic = (type ?? statfsSync(path).type) >>> 0;
  const name = UNSUITABLE.get(magic) ?? (magic === FUSE && !allowFuse ? 'FUSE' : undefined);
  if (name === undefined) return;
  throw new HoldfastError(
    'filesystem-unsuitable',
    `${path} is on ${name}, where a memory map and a lock on one machine say nothing to another: ` +
      'put the store on a local disk, and let other machines use it through a server' +
      (name === 'FUSE' ? '; if this FUSE file system is local and syncs, allow it by option' : ''),
  );
}

function restrict(path: string, mode: number, warn: (message: string) => void): void {
  const present = statSync(path).mode & 0o777;
  if ((present & ~mode) === 0) return;
  chmodSync(path, present & mode);
  warn(`others could reach ${path} (mode ${present.toString(8)}); it is private now`);
}

/** The era that this directory has reached, by its own witness. */
export function readEra(path: string): number | undefined {
  let content: string;
  try {
    content = readFileSync(join(path, ERA_FILE), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const match = /^era ([0-9]{1,5}) ([0-9]+)\n$/.exec(content);
  const era = Number(match?.[1]);
  if (!match || era > ERA_MAX || crc32c(utf8(`era ${era}`)) !== Number(match[2])) {
    throw new HoldfastError(
      'corrupt',
      `the file "era" in ${path} is damaged: it says how far tokens have risen. Restore a backup ` +
        'with an era above every one in use',
    );
  }
  return era;
}

/** Raises the witness; never lowers it. Durable when this returns. */
export function writeEra(path: string, era: number): void {
  if ((readEra(path) ?? -1) >= era) return;
  const line = `era ${era}`;
  const temporary = join(path, `${ERA_FILE}.new`);
  const fd = openSync(temporary, 'w', 0o600);
  try {
    writeSync(fd, `${line} ${crc32c(utf8(line))}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, join(path, ERA_FILE));
  syncDirectory(path);
}

/** Makes names in a directory durable. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
