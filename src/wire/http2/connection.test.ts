import { describe, expect, it } from 'vitest';
import { broken, CASES } from '../../../test/http2/cases.ts';

describe('a connection', () => {
  it.each(CASES.map((test) => [test.section, test.role, test.rule, test] as const))(
    'keeps section %s as a %s: %s',
    (_section, _role, _rule, test) => {
      expect(broken(test)).toBeUndefined();
    },
  );
});
