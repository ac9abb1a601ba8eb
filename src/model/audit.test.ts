import { createHash, createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { text, utf8 } from '../base/bytes.ts';
import { generateEd25519 } from '../base/ed25519.ts';
import {
  type AuditAct,
  type AuditEntry,
  canonical,
  ERA_ACT,
  linked,
  NO_HASH,
  NOBODY,
  PRUNE_ACT,
  readEntry,
  writeEntry,
} from './audit.ts';
import { type Anchor, ChainCheck, pruned, type Verdict } from './audit-chain.ts';
import {
  type CheckOptions,
  checkExport,
  headSigned,
  type SignedHead,
  writeExport,
} from './audit-export.ts';

const sha256 = (bytes: Uint8Array): Uint8Array => createHash('sha256').update(bytes).digest();
const { public: key, secret } = generateEd25519();
const signer = createPrivateKey({
  key: { kty: 'OKP', crv: 'Ed25519', x: key, d: secret },
  format: 'jwk',
});
const OPTIONS: CheckOptions = {
  sha256,
  verify(x, signed, signature) {
    try {
      const jwk = { kty: 'OKP', crv: 'Ed25519', x };
      return verify(null, signed, createPublicKey({ key: jwk, format: 'jwk' }), signature);
    } catch {
      return false;
    }
  },
};

type Part = Partial<AuditAct> & { readonly era?: number; readonly revision?: number };

function chain(parts: readonly Part[], from: Anchor = { seq: 0, hash: NO_HASH }): AuditEntry[] {
  const entries: AuditEntry[] = [];
  let { seq, hash: previous } = from;
  for (const { era = 1, revision = 10 + seq, ...part } of parts) {
    const rest = { subject: '', outcome: 'done', reason: '', times: 1, of: 0 } as const;
    const act: AuditAct = { ...NOBODY, ...rest, wallMs: 1_700_000_000_000, act: 'x.y', ...part };
    const entry = linked(act, { seq: ++seq, era, revision, server: 'a', previous }, sha256);
    entries.push(entry);
    previous = entry.hash;
  }
  return entries;
}

function signed(entries: readonly AuditEntry[]): SignedHead {
  const { seq = 0, hash = NO_HASH } = entries.at(-1) ?? {};
  const head = { seq, hash, era: 1, revision: 99, wallMs: 1_700_000_000_000, key };
  const signature = sign(null, headSigned(head), signer).toString('hex');
  return { ...head, signature };
}

const exported = (entries: readonly AuditEntry[]): Uint8Array =>
  utf8(writeExport(entries, signed(entries)));
const checked = (file: Uint8Array, expected: Anchor[] = []): Verdict =>
  checkExport(file, { ...OPTIONS, expected });
const check = (entries: readonly AuditEntry[], expected: Anchor[] = []): Verdict => {
  const judge = new ChainCheck(sha256, expected);
  for (const entry of entries) judge.add(entry);
  return judge.end();
};

const words = fc.string({ unit: 'binary', maxLength: 12 });
const parts = fc.array(
  fc.record({
    user: words,
    act: fc.constantFrom('user.add', 'lock.break', 'login'),
    subject: words,
    reason: fc.constantFrom('', 'stuck since "noon"', 'ünterwegs 🗝', '\ud800 half'),
    outcome: fc.constantFrom('done', 'refused', 'unknown'),
    times: fc.integer({ min: 1, max: 99 }),
  }),
  { minLength: 1, maxLength: 8 },
);

describe('an entry', () => {
  test('is encoded byte for byte as its documentation says', () => {
    const [entry] = chain([{ user: 'root', act: 'user.add', subject: 'ann' }]);
    const fields = ['holdfast-audit-1', '1', '1700000000000', '1', '10', 'a', 'root', '', '', ''];
    fields.push('user.add', 'ann', 'done', '', '1', '0', NO_HASH);
    const wanted = fields.map((field) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(Buffer.byteLength(field));
      return Buffer.concat([length, Buffer.from(field)]);
    });
    expect(Buffer.from(canonical(entry!))).toEqual(Buffer.concat(wanted));
    expect(entry!.hash).toBe(createHash('sha256').update(Buffer.concat(wanted)).digest('hex'));
  });

  test('has the same hash here for as long as logs are kept', () => {
    const [entry] = chain([{ user: 'root', act: 'user.add', subject: 'ann' }]);
    expect(entry!.hash).toMatchInlineSnapshot(
      `"78c5a8c561e3eaf6ca684a72e54760f8006491aff4c6db3b782fc5cf8a27cec8"`,
    );
  });

  test('is one line, and read back only if it is that line', () => {
    fc.assert(
      fc.property(parts, (acts) => {
        for (const entry of chain(acts)) {
          const line = writeEntry(entry);
          expect(line).not.toContain('\n');
          expect(readEntry(line)).toEqual(entry);
          expect(readEntry(` ${line}`)).toBeUndefined();
        }
      }),
    );
  });

  test('has bounded texts, whatever a caller takes for a name', () => {
    const [entry] = chain([{ user: 'u'.repeat(9_999), subject: 's'.repeat(99_999) }]);
    expect(writeEntry(entry!).length).toBeLessThan(1_500);
  });
});

describe('a log that was changed is not whole', () => {
  test('an untouched one is', () => {
    fc.assert(
      fc.property(parts, (acts) => {
        const entries = chain(acts);
        const verdict = checked(exported(entries));
        expect(verdict).toMatchObject({ fault: undefined, entries: entries.length, first: 1 });
        expect(verdict.head).toEqual({ seq: entries.length, hash: entries.at(-1)!.hash });
      }),
    );
  });

  test('any single altered byte of an export is caught', () => {
    fc.assert(
      fc.property(parts, fc.nat(), fc.integer({ min: 1, max: 255 }), (acts, at, by) => {
        const file = exported(chain(acts)).slice();
        file[at % file.length]! ^= by;
        expect(checked(file).fault).toBeDefined();
      }),
      { numRuns: 500 },
    );
  });

  test('every byte of one export, one after another', () => {
    const original = exported(chain([{ subject: 'é\ufffd' }, { reason: 'x' }]));
    for (let at = 0; at < original.length; at++) {
      const file = original.slice();
      file[at]! ^= 0x20;
      expect([at, checked(file).fault === undefined]).toEqual([at, false]);
    }
  });

  type Damage = (entries: AuditEntry[], at: number, other: number) => AuditEntry[];
  const DAMAGES: Readonly<Record<string, Damage>> = {
    removed: (entries, at) => entries.toSpliced(at, 1),
    swapped: (entries, at, other) => entries.with(at, entries[other]!).with(other, entries[at]!),
    duplicated: (entries, at) => entries.toSpliced(at, 0, entries[at]!),
    inserted: (entries, at) => {
      const { seq, previous } = entries[at]!;
      return entries.toSpliced(
        at,
        0,
        chain([{ act: 'alien' }], { seq: seq - 1, hash: previous })[0]!,
      );
    },
    rewritten: (entries, at) => {
      const { seq, previous } = entries[at]!;
      return entries.with(at, chain([{ act: 'alien' }], { seq: seq - 1, hash: previous })[0]!);
    },
    truncated: (entries, at) => entries.slice(0, at),
  };

  test.each(Object.entries(DAMAGES))('an entry %s is caught and named', (_name, damage) => {
    fc.assert(
      fc.property(parts, fc.nat(), fc.nat(), (acts, i, j) => {
        const entries = chain([...acts, { act: 'last' }]);
        const [at, other] = [i % entries.length, j % entries.length];
        const damaged = damage(entries, at, other);
        fc.pre(JSON.stringify(damaged) !== JSON.stringify(entries));
        const { fault } = checkExport(utf8(writeExport(damaged, signed(entries))), OPTIONS);
        expect(fault?.seq).toBeLessThanOrEqual(entries.length + 1);
        expect(fault?.seq).toBeGreaterThanOrEqual(Math.min(at, other));
      }),
    );
  });

  test.each(Object.entries(DAMAGES))(
    'control: without chaining an entry %s is not caught',
    (_name, damage) => {
      const entries = chain([{ user: 'a' }, { user: 'b' }, { user: 'c' }]);
      const damaged = damage(entries, 1, 2);
      // Each line alone, with its own checksum, as a log without links would be judged.
      const alone = damaged.every((entry) => {
        const { hash, ...rest } = entry;
        return Buffer.from(sha256(canonical(rest))).toString('hex') === hash;
      });
      expect(alone).toBe(true);
      expect(check(damaged, [signed(entries)]).fault).toBeDefined();
    },
  );

  test('a tail that was cut off with its head is caught by an anchor, and by nothing else', () => {
    const entries = chain([{}, {}, {}]);
    const [, second, third] = entries;
    const cut = exported(entries.slice(0, 2));
    expect(checked(cut).fault).toBeUndefined();
    expect(checked(cut, [third!]).fault).toEqual({
      seq: 3,
      why: 'the log ends at 2, before the 3 expected',
    });
    expect(checked(exported(entries), [second!, third!]).fault).toBeUndefined();
  });

  test('an export without its last line, or without a line feed, is not whole', () => {
    const file = exported(chain([{}, {}]));
    const lines = text(file).split('\n');
    expect(checked(utf8(`${lines.slice(0, 2).join('\n')}\n`)).fault?.why).toContain('cut off');
    expect(checked(file.subarray(0, file.length - 1)).fault).toBeDefined();
    expect(checked(new Uint8Array(0)).fault).toBeDefined();
  });

  test('a log that was written anew from some entry on does not pass an anchor in it', () => {
    const entries = chain([{}, {}, {}]);
    const forged = [...entries.slice(0, 1), ...chain([{ user: 'x' }, {}], entries[0])];
    expect(checked(exported(forged)).fault).toBeUndefined();
    expect(checked(exported(forged), [entries[2]!]).fault).toMatchObject({ seq: 3 });
  });

  test('a head signed with a key that is not among those given is refused', () => {
    const file = exported(chain([{}]));
    const keys = [{ id: key.slice(0, 16), public: key }];
    expect(checkExport(file, { ...OPTIONS, keys }).fault).toBeUndefined();
    const { public: x } = generateEd25519();
    const others = [{ id: x.slice(0, 16), public: x }];
    expect(checkExport(file, { ...OPTIONS, keys: others }).fault?.why).toContain('not among');
  });
});

describe('eras', () => {
  test('another era is told where an entry says that it begins', () => {
    const { fault, forks } = check(
      chain([{}, { act: ERA_ACT, era: 3, revision: 1 }, { era: 3, revision: 2 }]),
    );
    expect(fault).toBeUndefined();
    expect(forks).toEqual([{ seq: 2, fromEra: 1, toEra: 3 }]);
  });

  test('one that begins without an entry, or falls, is a fault; so is a revision that falls', () => {
    expect(check(chain([{}, { era: 2 }])).fault).toMatchObject({ seq: 2 });
    expect(check(chain([{ era: 2 }, { era: 1 }])).fault).toMatchObject({ seq: 2 });
    expect(check(chain([{}, { revision: 9 }])).fault?.why).toContain('set back');
  });
});

describe('pruning', () => {
  const entries = chain([{}, {}, {}]);
  const note = (hash: string): Part => ({ act: PRUNE_ACT, ...pruned(3, hash) });

  test('a log that says what was pruned before it is whole', () => {
    const [, second, third] = entries;
    const rest = [third!, ...chain([note(second!.hash), {}], third)];
    expect(check(rest)).toMatchObject({ fault: undefined, first: 3, entries: 3 });
    expect(check(rest, [second!]).fault).toBeUndefined();
    expect(check(rest, [entries[0]!]).fault?.why).toContain('pruned');
  });

  test('everything before the note itself may be gone', () => {
    const [, , third] = entries;
    const rest = chain([{ act: PRUNE_ACT, ...pruned(4, third!.hash) }], third);
    expect(check(rest).fault).toBeUndefined();
  });

  test('a beginning that nothing accounts for, or that is accounted for wrongly, is a fault', () => {
    const [, , third] = entries;
    expect(check([third!]).fault).toMatchObject({ seq: 2 });
    expect(check([third!, ...chain([note(NO_HASH)], third)]).fault).toMatchObject({ seq: 2 });
    const refused = { ...note(entries[1]!.hash), outcome: 'refused' as const };
    expect(check([third!, ...chain([refused], third)]).fault).toMatchObject({ seq: 2 });
  });
});
