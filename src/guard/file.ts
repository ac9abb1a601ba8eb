/**
 * A fenced directory for the processes of one machine: plain files that anyone can read, changed
 * only under a token that passes the mark.
 *
 * A commit has four steps, and a crash may fall between any two:
 *   1. new contents are staged and synced beside the data, outside the critical section;
 *   2. one transaction: finish a predecessor's intent if one is left, compare the token, store the
 *      mark *and* the intent; durable from here on;
 *   3. apply the intent to the files and sync them; every action may be repeated;
 *   4. remove the intent.
 * Steps 3 and 4 run in a second transaction, so two processes never apply at once, and whoever
 * comes after a crash finishes what was decided. The mark is stored before any file changes.
 */
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { link, open, readFile, realpath, rename, rm } from 'node:fs/promises';
import { dirname, join, normalize, sep } from 'node:path';
import { toHex } from '../base/bytes.ts';
import { makeDirectory } from '../base/directories.ts';
import type { Random } from '../base/random.ts';
import { systemRandom } from '../base/system.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Token } from '../model/token.ts';
import type { Rule } from './fence.ts';
import { type Claim, Gate, type GuardOptions, type Presented } from './gate.ts';
import { MarkTable, readMark, storedMark, type TableTransaction } from './mark-table.ts';
import { decide } from './marks.ts';

const PRIVATE = '.holdfast';
const MARK = 'mark';
const INTENT = 'intent';
/** Not `O_APPEND`, which would write a repeated append at the end and not where it belongs. */
const APPEND_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW;

/** What is left to do on the files; each action gives the same result when repeated. */
type Action =
  | { readonly type: 'install'; readonly path: string; readonly staged: string }
  | {
      readonly type: 'append';
      readonly path: string;
      readonly staged: string;
      /** The length before: what a crash left beyond it is cut off. */
      readonly at: number;
    }
  | { readonly type: 'remove'; readonly path: string };

/** A change as asked for. A path may occur once in a commit, as source or as target. */
export type FileChange =
  | { readonly type: 'write'; readonly path: string; readonly data: Uint8Array | string }
  | { readonly type: 'append'; readonly path: string; readonly data: Uint8Array | string }
  | { readonly type: 'delete'; readonly path: string }
  | { readonly type: 'rename'; readonly from: string; readonly to: string };

export type FileStep = 'staged' | 'marked' | 'applying' | 'applied' | 'cleared';

export interface FencedDirectoryOptions extends GuardOptions {
  /** The name in messages and seals; by default the directory's path. */
  readonly resource?: string;
  readonly random?: Random;
  /** Called between the steps of a commit, so that a test can crash there. */
  readonly onStep?: (step: FileStep) => void;
}

export class FencedDirectory {
  readonly #root: string;
  readonly #stage: string;
  readonly #table: MarkTable;
  readonly #gate: Gate;
  readonly #resource: string;
  readonly #random: Random;
  readonly #onStep: (step: FileStep) => void;

  private constructor(root: string, table: MarkTable, options: FencedDirectoryOptions) {
    this.#root = root;
    this.#stage = join(root, PRIVATE, 'stage');
    this.#table = table;
    this.#gate = new Gate('file', options);
    this.#resource = options.resource ?? root;
    this.#random = options.random ?? systemRandom;
    this.#onStep = options.onStep ?? (() => {});
  }

  /**
   * Makes the directory when it is missing, and finishes what a crash left. Errors: `guard-unfit`
   * on file systems whose locks or links do not hold.
   */
  static async open(path: string, options: FencedDirectoryOptions = {}): Promise<FencedDirectory> {
    makeDirectory(join(path, PRIVATE, 'stage'));
    const root = await realpath(path);
    const table = MarkTable.open(join(root, PRIVATE, 'marks'));
    try {
      const directory = new FencedDirectory(root, table, options);
      await directory.#probe();
      await table.transact((at) => directory.#finish(at));
      return directory;
    } catch (error) {
      await table.close();
      throw error;
    }
  }

  write(as: Presented, path: string, data: Uint8Array | string): Promise<void> {
    return this.commit(as, [{ type: 'write', path, data }]);
  }

  append(as: Presented, path: string, data: Uint8Array | string): Promise<void> {
    return this.commit(as, [{ type: 'append', path, data }]);
  }

  delete(as: Presented, path: string): Promise<void> {
    return this.commit(as, [{ type: 'delete', path }]);
  }

  rename(as: Presented, from: string, to: string): Promise<void> {
    return this.commit(as, [{ type: 'rename', from, to }]);
  }

  /**
   * Raises the mark and changes nothing else: from then on nobody older writes. Whoever reads what
   * he is going to change begins with this; before it, an older holder may still write rightfully.
   */
  admit(as: Presented): Promise<void> {
    return this.commit(as, []);
  }

  /** All changes or none, durable when it resolves. Errors: `stale` and those of a bad path. */
  async commit(
    as: Presented,
    changes: readonly FileChange[],
    { rule = 'reign' }: { readonly rule?: Rule } = {},
  ): Promise<void> {
    await this.#gate.ready(as);
    const claim = this.#gate.read(as, this.#resource);
    const paths = await this.#checkedPaths(changes);
    // A stale token is usually seen here, before anything is staged; step 2 decides.
    this.#compare(await this.#table.read(MARK), claim, rule);
    const staged = await this.#stageAll(changes);
    try {
      this.#onStep('staged');
      await this.#table.transact((at) => {
        this.#finish(at);
        const verdict = this.#compare(at.get(MARK), claim, rule);
        const actions = this.#plan(changes, paths, staged);
        at.put(MARK, storedMark(verdict.mark));
        at.put(INTENT, actions);
      });
    } catch (error) {
      // With an unknown outcome the intent may stand, and then it needs what was staged.
      if (!HoldfastError.is(error) || error.outcome === 'rejected') await this.#unstage(staged);
      throw error;
    }
    // From here on it will happen, by this process or by the next one.
    await this.#finishNow();
    this.#onStep('cleared');
    this.#gate.admitted(claim);
  }

  /** With a token: refused when a newer writer has acted by the time the content is there. */
  async read(path: string, as?: Presented): Promise<Buffer> {
    const [target = ''] = await this.#checkedPaths([{ type: 'delete', path }]);
    if (as !== undefined) await this.#gate.ready(as);
    const claim = as === undefined ? undefined : this.#gate.read(as, this.#resource);
    try {
      return await readFile(join(this.#root, target));
    } catch (cause) {
      throw fileError(cause, target);
    } finally {
      if (claim) this.#compare(await this.#table.read(MARK), claim, 'reign');
    }
  }

  async mark(): Promise<Token> {
    return readMark(await this.#table.read(MARK))?.token ?? 0n;
  }

  async close(): Promise<void> {
    await this.#table.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #compare(stored: unknown, claim: Claim, rule: Rule): ReturnType<typeof decide> {
    const verdict = decide(readMark(stored), claim, rule, this.#gate.clock.wall());
    if (!verdict.admitted) throw this.#gate.refused(claim, verdict.mark);
    return verdict;
  }

  async #finishNow(): Promise<void> {
    this.#onStep('marked');
    try {
      await this.#table.transact((at) => this.#finish(at));
    } catch (cause) {
      throw new HoldfastError('storage-failed', `decided, but not yet applied: ${cause}`, {
        cause,
        outcome: 'unknown',
      });
    }
  }

  /**
   * Applies the stored intent, if one is left. Only ever inside a transaction, and synchronously:
   * each open transaction occupies a thread of Node's pool, and file calls that waited for a
   * thread there would wait for each other when several directories commit at once.
   */
  #finish(at: TableTransaction): void {
    const actions = at.get(INTENT) as readonly Action[] | undefined;
    if (!actions) return;
    const folders = new Set<string>();
    for (const action of actions) {
      this.#onStep('applying');
      const target = join(this.#root, action.path);
      makeDirectory(dirname(target));
      this.#apply(action, target);
      for (let up = dirname(target); up.startsWith(this.#root); up = dirname(up)) folders.add(up);
    }
    for (const folder of folders) syncFolder(folder);
    this.#onStep('applied');
    at.remove(INTENT);
    for (const action of actions) {
      if (action.type === 'append') rmSync(join(this.#stage, action.staged), { force: true });
    }
  }

  /** What is not staged any more was installed or appended before a crash. */
  #apply(action: Action, target: string): void {
    if (action.type === 'remove') {
      rmSync(target, { force: true });
      return;
    }
    const staged = join(this.#stage, action.staged);
    if (!existsSync(staged)) return;
    if (action.type === 'install') {
      renameSync(staged, target);
      return;
    }
    const data = readFileSync(staged);
    const file = openSync(target, APPEND_FLAGS, 0o644);
    try {
      ftruncateSync(file, action.at);
      let written = 0;
      while (written < data.length) {
        written += writeSync(file, data, written, data.length - written, action.at + written);
      }
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  }

  /** Renames become install and remove, so that no action depends on an earlier one. */
  #plan(
    changes: readonly FileChange[],
    paths: readonly string[],
    staged: readonly (string | undefined)[],
  ): readonly Action[] {
    for (const path of paths) this.#preparePlace(path);
    const actions: Action[] = [];
    let at = 0;
    for (const [i, change] of changes.entries()) {
      const path = paths[at++]!;
      const present = join(this.#root, path);
      if (change.type === 'delete') actions.push({ type: 'remove', path });
      else if (change.type === 'write') {
        actions.push({ type: 'install', path, staged: staged[i]! });
      } else if (change.type === 'append') {
        const size = statSync(present, { throwIfNoEntry: false })?.size ?? 0;
        actions.push({ type: 'append', path, staged: staged[i]!, at: size });
      } else {
        const name = this.#freshName();
        const target = paths[at++]!;
        try {
          linkSync(present, join(this.#stage, name));
        } catch (cause) {
          throw fileError(cause, path);
        }
        actions.push({ type: 'install', path: target, staged: name }, { type: 'remove', path });
      }
    }
    syncFolder(this.#stage);
    return actions;
  }

  /** An intent that could not be applied would stand in everyone's way for ever. */
  #preparePlace(path: string): void {
    const target = join(this.#root, path);
    try {
      makeDirectory(dirname(target));
    } catch (cause) {
      throw new HoldfastError('invalid-argument', `${path} lies below a file`, { cause });
    }
    const present = lstatSync(target, { throwIfNoEntry: false });
    if (present && !present.isFile()) {
      throw new HoldfastError('invalid-argument', `${path} is not a plain file`);
    }
  }

  async #stageAll(changes: readonly FileChange[]): Promise<readonly (string | undefined)[]> {
    const staged: (string | undefined)[] = [];
    try {
      for (const change of changes) {
        const name = 'data' in change ? this.#freshName() : undefined;
        staged.push(name);
        if (name && 'data' in change) await writeSynced(join(this.#stage, name), change.data);
      }
      syncFolder(this.#stage);
      return staged;
    } catch (cause) {
      await this.#unstage(staged);
      throw new HoldfastError('storage-failed', `cannot stage: ${cause}`, { cause });
    }
  }

  async #unstage(staged: readonly (string | undefined)[]): Promise<void> {
    for (const name of staged) if (name) await rm(join(this.#stage, name), { force: true });
  }

  #freshName(): string {
    return `${process.pid}-${toHex(this.#random.bytes(12))}`;
  }

  /** Inside the directory, not the guard's own, each once, and no link leads out of it. */
  async #checkedPaths(changes: readonly FileChange[]): Promise<readonly string[]> {
    for (const change of changes) ensureWellFormed(change);
    const paths = changes.flatMap((change) =>
      change.type === 'rename' ? [change.from, change.to] : [change.path],
    );
    const clean = paths.map(cleanPath);
    if (new Set(clean).size < clean.length) {
      throw new HoldfastError('invalid-argument', 'a path occurs more than once in this commit');
    }
    if (clean.some((path) => clean.some((other) => other.startsWith(path + sep)))) {
      throw new HoldfastError('invalid-argument', 'a path lies below another one of this commit');
    }
    for (const path of clean) {
      let up = dirname(join(this.#root, path));
      let real = await realpath(up).catch(ignoreMissing);
      while (real === undefined) {
        up = dirname(up);
        real = await realpath(up).catch(ignoreMissing);
      }
      if (real === this.#root || real.startsWith(this.#root + sep)) continue;
      throw new HoldfastError('invalid-argument', `${path} leads out of the directory`);
    }
    return clean;
  }

  /** Links and renames must be real here, and staged files of killed processes are removed. */
  async #probe(): Promise<void> {
    // The process first, as with everything staged: others that open now leave it alone.
    const name = join(this.#stage, `${this.#freshName()}-probe`);
    try {
      await writeSynced(name, 'probe');
      await link(name, `${name}-link`);
      await rename(`${name}-link`, `${name}-moved`);
      syncFolder(this.#stage);
    } catch (cause) {
      throw new HoldfastError('guard-unfit', `${this.#root} cannot be fenced: ${cause}`, { cause });
    } finally {
      for (const end of ['', '-link', '-moved']) await rm(name + end, { force: true });
    }
    await this.#table.transact((at) => {
      const wanted = new Set(
        ((at.get(INTENT) as readonly Action[] | undefined) ?? []).map((action) =>
          action.type === 'remove' ? '' : action.staged,
        ),
      );
      for (const left of readdirSync(this.#stage)) {
        if (wanted.has(left) || isAlive(Number(left.split('-', 1)[0]))) continue;
        rmSync(join(this.#stage, left), { force: true });
      }
    });
  }
}

/** What cannot be carried out must not be decided. The types say as much, to who has them checked. */
function ensureWellFormed(change: FileChange): void {
  const { type, path, from, to, data } = change as Readonly<Record<string, unknown>>;
  const isText = (value: unknown): boolean => typeof value === 'string';
  const hasData = isText(data) || ArrayBuffer.isView(data);
  const formed =
    type === 'rename'
      ? isText(from) && isText(to)
      : isText(path) && (type === 'delete' || (hasData && (type === 'write' || type === 'append')));
  if (formed) return;
  throw new HoldfastError(
    'invalid-argument',
    `a change of files is a write or append with path and data, a delete with path, or a rename with from and to; not one of type ${JSON.stringify(type)} with ${Object.keys(change).join(', ')}`,
  );
}

function cleanPath(path: string): string {
  const clean = normalize(path);
  const first = clean.split(sep, 1)[0];
  const outside = clean === '.' || clean.startsWith(sep) || first === '..' || clean.includes('\0');
  if (outside || first === PRIVATE || clean.endsWith(sep)) {
    throw new HoldfastError(
      'invalid-argument',
      `${JSON.stringify(path)} is not the path of a file in this directory`,
    );
  }
  return clean;
}

async function writeSynced(path: string, data: Uint8Array | string): Promise<void> {
  const file = await open(path, 'wx', 0o644);
  try {
    await file.writeFile(data);
    await file.sync();
  } finally {
    await file.close();
  }
}

function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as { code?: unknown }).code === 'EPERM';
  }
}

function ignoreMissing(error: unknown): undefined {
  if ((error as { code?: unknown }).code === 'ENOENT') return undefined;
  throw error;
}

function fileError(cause: unknown, path: string): HoldfastError {
  const missing = (cause as { code?: unknown }).code === 'ENOENT';
  return new HoldfastError(
    missing ? 'invalid-argument' : 'storage-failed',
    missing ? `there is no file ${path}` : `cannot use ${path}: ${cause}`,
    { cause },
  );
}
