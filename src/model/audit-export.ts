/**
 * A log as a file: an entry in each line, and in the last one the head of the chain, signed.
 *
 * Reading is strict: there is one text for each log, so that no byte can change unnoticed, not even
 * one that would say the same.
 */
import { fromBase64url } from '../base/base64url.ts';
import { type Bytes, equalBytes, fromBinaryString, text, toHex, utf8 } from '../base/bytes.ts';
import { type AuditEntry, encodeFields, readEntry, type Sha256, writeEntry } from './audit.ts';
import { type Anchor, ChainCheck, type Verdict } from './audit-chain.ts';
import type { PublicSealKey } from './seal-keys.ts';

/** Where the chain ended at one time, over the signature of the authority. */
export interface SignedHead extends Anchor {
  readonly era: number;
  readonly revision: number;
  readonly wallMs: number;
  /** The public key that signed, base64url; its first 16 signs are the id of the key. */
  readonly key: string;
  /** Ed25519 over `headSigned`, in hex. */
  readonly signature: string;
}

const VERSION = 'holdfast-audit-head-1';
const KEY_ID_LENGTH = 16;

/** What is signed, in the encoding of entries. */
export function headSigned(head: Omit<SignedHead, 'signature'>): Bytes {
  const { seq, hash, era, revision, wallMs, key } = head;
  return encodeFields([VERSION, seq, hash, era, revision, wallMs, key]);
}

export function writeHead({
  seq,
  hash,
  era,
  revision,
  wallMs,
  key,
  signature,
}: SignedHead): string {
  return JSON.stringify({ head: { seq, hash, era, revision, wallMs, key, signature } });
}

function readHead(line: string): SignedHead | undefined {
  if (!line.startsWith('{"head":')) return undefined;
  try {
    const { head } = JSON.parse(line) as { head: SignedHead };
    const { seq, era, revision, wallMs, hash, key, signature } = head;
    const texts = [hash, key, signature].every((value) => typeof value === 'string');
    const numbers = [seq, era, revision, wallMs].every(Number.isSafeInteger);
    return texts && numbers && writeHead(head) === line ? head : undefined;
  } catch {
    return undefined;
  }
}

/** Every line ends with a line feed, the last one too. */
export function writeExport(entries: readonly AuditEntry[], head: SignedHead): string {
  return [...entries.map(writeEntry), writeHead(head), ''].join('\n');
}

export interface CheckOptions {
  readonly sha256: Sha256;
  /** Whether Ed25519 says that `key` made it; false also for what is no key. */
  readonly verify: (key: string, signed: Bytes, signature: Bytes) => boolean;
  /** Keys that the authority is known by; absent: any, and the signature only binds the file. */
  readonly keys?: readonly PublicSealKey[] | undefined;
  readonly expected?: readonly Anchor[];
}

export interface CheckedExport extends Verdict {
  readonly signed: SignedHead | undefined;
}

/** Judges a file as it is. A missing head is a fault: the end could be anywhere. */
export function checkExport(file: Bytes, options: CheckOptions): CheckedExport {
  const lines = text(file).split('\n');
  // Behind the last line feed there is nothing.
  const rest = lines.pop();
  const last = lines.at(-1);
  const head = last === undefined ? undefined : readHead(last);
  const anchors = [...(options.expected ?? []), ...(head ? [head] : [])];
  const check = new ChainCheck(options.sha256, anchors);
  const entries = head ? lines.slice(0, -1) : lines;
  const read: AuditEntry[] = [];
  for (const line of entries) {
    const entry = readEntry(line);
    if (entry) read.push(entry);
    if (entry) check.add(entry);
    else check.fail('its line is damaged');
    if (check.fault) break;
  }
  if (rest !== '') check.fail('the file ends in the middle of a line');
  if (!equalBytes(utf8([...lines, ''].join('\n')), file)) check.fail('the file is no plain text');
  if (!head) check.fail('the signed head is missing: the end was cut off');
  else judgeHead(check, head, read.at(-1)?.seq ?? 0, options);
  return { ...check.end(), signed: head };
}

function judgeHead(check: ChainCheck, head: SignedHead, last: number, options: CheckOptions): void {
  const wrong = wrongSignature(head, options);
  if (wrong !== undefined) check.fail(wrong, head.seq);
  if (head.seq < last) check.fail('the signed head is before it', head.seq + 1);
}

/** Undefined: it holds. */
export function wrongSignature(
  head: SignedHead,
  { verify, keys }: Pick<CheckOptions, 'verify' | 'keys'>,
): string | undefined {
  const signature = fromHex(head.signature);
  if (!signature || !fromBase64url(head.key) || !verify(head.key, headSigned(head), signature)) {
    return 'the signature of the head is wrong';
  }
  if (!keys || keys.some((key) => key.public === head.key)) return undefined;
  return `the head is signed with the key ${keyIdOf(head)}, which is not among those given`;
}

export function keyIdOf({ key }: SignedHead): string {
  return key.slice(0, KEY_ID_LENGTH);
}

/** `SEQ:HASH`, as it is shown. Undefined for anything else. */
export function readAnchor(said: string): Anchor | undefined {
  const [, seq, hash] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(said) ?? [];
  return seq !== undefined && hash !== undefined ? { seq: Number(seq), hash } : undefined;
}

export function writeAnchor({ seq, hash }: Anchor): string {
  return `${seq}:${hash}`;
}

function fromHex(hex: string): Bytes | undefined {
  if (!/^(?:[0-9a-f]{2})+$/.test(hex)) return undefined;
  const bytes = hex.match(/../g)!.map((pair) => Number.parseInt(pair, 16));
  const decoded = fromBinaryString(String.fromCharCode(...bytes));
  return toHex(decoded) === hex ? decoded : undefined;
}
