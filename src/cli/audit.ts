/** `holdfast audit`: who did what to an authority, and whether the log of it is whole. */
import { createHash, createPublicKey, verify } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { utf8 } from '../base/bytes.ts';
import type { Auditor } from '../engine/etcd/auditor.ts';
import { parseEtcdUrl } from '../engine/etcd/config.ts';
import { EtcdEngine } from '../engine/etcd/engine.ts';
import { type AuditEntry, writeEntry } from '../model/audit.ts';
import {
  type CheckedExport,
  type CheckOptions,
  checkExport,
  keyIdOf,
  readAnchor,
  writeAnchor,
  writeExport,
} from '../model/audit-export.ts';
import { HoldfastError } from '../model/errors.ts';
import { readSealKeys } from '../model/seal-keys.ts';
import type { Command } from './command.ts';

const USAGE = `holdfast audit: who did what to an authority, and whether the log of it is whole

  holdfast audit [list] [--from SEQ] [--limit N] [--json]
      shows entries, the newest 100 without --from
  holdfast audit verify [--file FILE] [--expect SEQ:HASH]… [--keys FILE]
      ends with 0 if every entry follows the one before up to the signed head, with 1 and the first
      bad entry if not; --file needs no server
  holdfast audit export FILE
      every entry and the signed head, a line of JSON each
  holdfast audit prune --before SEQ
      removes what is older, and leaves an entry that holds its hash; export it first

  --server URL         etcd://root:PASSWORD@host:2379     (etcd://127.0.0.1:2379)
  --expect SEQ:HASH    a head that was seen before: it must be in the log; may be repeated
  --keys FILE          the head must be signed by one of these: what holdfast seal-keys --save wrote

Keep the head that verify and export show where nobody who can write the store can reach it: a tail
that is cut off shows by nothing else.`;

const OPTIONS = {
  server: { type: 'string', default: 'etcd://127.0.0.1:2379' },
  from: { type: 'string' },
  limit: { type: 'string' },
  json: { type: 'boolean', default: false },
  file: { type: 'string' },
  expect: { type: 'string', multiple: true, default: [] as string[] },
  keys: { type: 'string' },
  before: { type: 'string' },
} as const;

type Values = ReturnType<typeof parsed>['values'];

function parsed(args: readonly string[]) {
  return parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });
}

const LIST_LIMIT = 100;

export const command: Command = {
  about: 'show, check, save or prune the log of administrative acts',
  usage: USAGE,
  async run(args) {
    const { values, positionals } = parsed(args);
    const [verb = 'list', target, ...more] = positionals;
    if (more.length > 0 || (target !== undefined && verb !== 'export')) throw unclear();
    switch (verb) {
      case 'list':
        return onServer(values, (auditor) => list(auditor, values));
      case 'verify':
        return report(await check(values));
      case 'export':
        if (target === undefined) throw unclear();
        return onServer(values, (auditor) => save(auditor, target));
      case 'prune':
        return onServer(values, (auditor) => prune(auditor, values));
      default:
        throw unclear();
    }
  },
};

function unclear(): HoldfastError {
  return new HoldfastError(
    'invalid-argument',
    'say holdfast audit list, verify, export FILE or prune --before SEQ',
  );
}

async function onServer<T>(
  { server }: Pick<Values, 'server'>,
  work: (auditor: Auditor) => Promise<T>,
): Promise<T> {
  await using engine = await EtcdEngine.open(parseEtcdUrl(server));
  return await work(engine.auditor);
}

async function list(auditor: Auditor, { from, limit, json }: Values): Promise<number> {
  const most = number(limit, 'limit', LIST_LIMIT);
  let next = number(from, 'from', 0);
  if (from === undefined) next = Math.max((await auditor.head()).head.seq - most + 1, 1);
  for (let left = most; left > 0; ) {
    const entries = await auditor.list(next, left);
    for (const entry of entries) console.log(json ? writeEntry(entry) : shown(entry));
    if (entries.length === 0) break;
    next = entries.at(-1)!.seq + 1;
    left -= entries.length;
  }
  return 0;
}

/** One line: when, who, what, to whom, and how it ended. */
function shown(entry: AuditEntry): string {
  const { seq, wallMs, era, user, certificate, address, act, subject, outcome, reason } = entry;
  const who = [user || (certificate ? `cert ${certificate}` : '-'), address].filter(Boolean);
  const how = entry.times > 1 ? `${outcome} ×${entry.times}` : outcome;
  const rest = [entry.of > 0 ? `of ${entry.of}` : '', reason].filter(Boolean).join(': ');
  const parts = [`${seq}`, new Date(wallMs).toISOString(), `era ${era}`, who.join('@'), act];
  return [...parts, subject, how, rest].filter(Boolean).map(oneLine).join('  ');
}

/** Names come from callers: nothing in them may move the cursor of whoever reads. */
function oneLine(value: string): string {
  return value.replace(/\p{C}/gu, '·');
}

/** The log up to the head as it was signed; what is written meanwhile is left for the next time. */
async function fetched(auditor: Auditor): Promise<Uint8Array> {
  const { head, first } = await auditor.head();
  const entries: AuditEntry[] = [];
  for (let next = first; next <= head.seq; ) {
    const page = (await auditor.list(next)).filter(({ seq }) => seq <= head.seq);
    if (page.length === 0) break;
    entries.push(...page);
    next = page.at(-1)!.seq + 1;
  }
  return utf8(writeExport(entries, head));
}

async function check(values: Values): Promise<CheckedExport> {
  const expected = values.expect.map((said) => {
    const anchor = readAnchor(said);
    if (anchor) return anchor;
    throw new HoldfastError('invalid-argument', `--expect takes SEQ:HASH, not ${said}`);
  });
  const keys = values.keys === undefined ? {} : { keys: readSealKeys(await text(values.keys)) };
  const log =
    values.file === undefined ? await onServer(values, fetched) : await bytes(values.file);
  return checkExport(log, { ...TOOLS, ...keys, expected });
}

const TOOLS: Pick<CheckOptions, 'sha256' | 'verify'> = {
  sha256: (content) => createHash('sha256').update(content).digest(),
  verify(x, signed, signature) {
    try {
      const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
      return verify(null, signed, key, signature);
    } catch {
      return false;
    }
  },
};

function report({ fault, entries, first, head, forks, signed }: CheckedExport): number {
  for (const { seq, fromEra, toEra } of forks) {
    console.log(
      `era ${toEra} begins at entry ${seq}: the era was lifted, or this store was made from a backup; what era ${fromEra} wrote afterwards is not here`,
    );
  }
  if (fault) {
    console.error(`entry ${fault.seq}: ${fault.why}`);
    return 1;
  }
  const from = first > 1 ? `, ${first - 1} before them pruned` : '';
  console.log(`${entries} entries, each following the one before${from}`);
  console.log(`head ${writeAnchor(head)}`);
  if (signed) {
    const at = new Date(signed.wallMs).toISOString();
    console.log(`signed by ${keyIdOf(signed)} in era ${signed.era} at ${at}`);
  }
  return 0;
}

/** Beside its place first, so that a broken export never stands in for a whole one. */
async function save(auditor: Auditor, target: string): Promise<number> {
  const log = await fetched(auditor);
  const verdict = checkExport(log, TOOLS);
  const part = `${target}.part`;
  await using file = await open(part, 'w', 0o600);
  await file.writeFile(log);
  await file.sync();
  await rename(part, target);
  return report(verdict);
}

async function prune(auditor: Auditor, { before }: Values): Promise<number> {
  if (before === undefined) throw unclear();
  const removed = await auditor.prune(number(before, 'before', 0));
  console.log(`${removed} entries removed; those from ${before} on are there`);
  return 0;
}

async function bytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new HoldfastError('invalid-argument', `cannot read ${path}: ${(error as Error).message}`);
  }
}

async function text(path: string): Promise<string> {
  return Buffer.from(await bytes(path)).toString();
}

function number(value: string | undefined, name: string, otherwise: number): number {
  if (value === undefined) return otherwise;
  if (/^\d{1,15}$/.test(value)) return Number(value);
  throw new HoldfastError('invalid-argument', `--${name} takes a number, not ${value}`);
}
