import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TOKEN_MAX } from '../model/token.ts';
import {
  admit,
  admitReader,
  admitWriter,
  NO_MARK,
  type Rule,
  refusalText,
  type SharedMarks,
} from './fence.ts';

const token = fc.oneof(fc.bigInt(1n, 20n), fc.bigInt(1n, TOKEN_MAX));
const rule = fc.constantFrom<Rule>('reign', 'once');
const attempts = fc.array(fc.record({ token, rule }), { maxLength: 40 });

function replay(list: readonly { readonly token: bigint; readonly rule: Rule }[]) {
  let mark = NO_MARK;
  const admitted: bigint[] = [];
  const marks: bigint[] = [mark];
  for (const attempt of list) {
    const verdict = admit(mark, attempt.token, attempt.rule);
    if (verdict.admitted) admitted.push(attempt.token);
    mark = verdict.mark;
    marks.push(mark);
  }
  return { mark, admitted, marks };
}

describe('the rule of every guard', () => {
  it('never lets the mark fall', () => {
    fc.assert(
      fc.property(attempts, (list) => {
        const { marks } = replay(list);
        for (let i = 1; i < marks.length; i++) expect(marks[i]! >= marks[i - 1]!).toBe(true);
      }),
    );
  });

  it('never admits a token after a greater one', () => {
    fc.assert(
      fc.property(attempts, (list) => {
        const { admitted } = replay(list);
        for (let i = 1; i < admitted.length; i++) {
          expect(admitted[i]! >= admitted[i - 1]!).toBe(true);
        }
      }),
    );
  });

  it('ends at the greatest token presented, in whatever order they come', () => {
    fc.assert(
      fc.property(attempts, fc.infiniteStream(fc.nat()), (list, keys) => {
        let greatest = 0n;
        for (const each of list) if (each.token > greatest) greatest = each.token;
        const shuffled = list
          .map((each) => ({ each, key: keys.next().value }))
          .sort((a, b) => a.key - b.key)
          .map(({ each }) => each);
        expect(replay(list).mark).toBe(greatest);
        expect(replay(shuffled).mark).toBe(greatest);
      }),
    );
  });

  it('is the maximum and nothing else under reign, whatever the order of late messages', () => {
    fc.assert(
      fc.property(fc.array(token), (tokens) => {
        let greatest = 0n;
        let mark = NO_MARK;
        for (const each of tokens) {
          const verdict = admit(mark, each, 'reign');
          expect(verdict.admitted).toBe(each >= greatest);
          greatest = each > greatest ? each : greatest;
          mark = verdict.mark;
          expect(mark).toBe(greatest);
        }
      }),
    );
  });

  it('admits each token at most once under once', () => {
    fc.assert(
      fc.property(fc.array(token), (tokens) => {
        const { admitted } = replay(tokens.map((each) => ({ token: each, rule: 'once' as const })));
        expect(new Set(admitted).size).toBe(admitted.length);
      }),
    );
  });

  it('changes nothing when it refuses', () => {
    fc.assert(
      fc.property(token, token, rule, (mark, presented, by) => {
        const verdict = admit(mark, presented, by);
        if (!verdict.admitted) expect(verdict.mark).toBe(mark);
      }),
    );
  });

  it('tells apart tokens that a double cannot', () => {
    expect(admit(2n ** 53n + 1n, 2n ** 53n, 'reign').admitted).toBe(false);
    expect(admit(2n ** 53n, 2n ** 53n + 1n, 'once').admitted).toBe(true);
  });

  it('says who lost against what', () => {
    expect(refusalText(33n, 34n)).toBe('stale: token 33 < mark 34');
    expect(refusalText(34n, 34n)).toContain('only once');
  });
});

describe('the rule with readers', () => {
  const shared = fc.array(fc.record({ token, reads: fc.boolean(), rule }), { maxLength: 40 });

  it('lets a reader pass exactly when no newer writer has acted', () => {
    fc.assert(
      fc.property(shared, (list) => {
        let marks: SharedMarks = { writers: NO_MARK, readers: NO_MARK };
        let newestWriter = 0n;
        let newestReader = 0n;
        for (const each of list) {
          const verdict = each.reads
            ? admitReader(marks, each.token)
            : admitWriter(marks, each.token, each.rule);
          if (each.reads) expect(verdict.admitted).toBe(each.token >= newestWriter);
          else if (verdict.admitted) {
            expect(each.token >= newestWriter && each.token >= newestReader).toBe(true);
          }
          if (verdict.admitted && each.reads && each.token > newestReader) {
            newestReader = each.token;
          }
          if (verdict.admitted && !each.reads) newestWriter = each.token;
          marks = verdict.marks;
          expect(marks).toEqual({ writers: newestWriter, readers: newestReader });
        }
      }),
    );
  });
});
