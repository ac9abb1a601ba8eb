import { describe, expect, it } from 'vitest';
import { type Deferred, deferred } from '../base/deferred.ts';
import { Requests } from './requests.ts';

/** A request under way, and what it was sent again with. */
function sent(send?: () => Promise<string>): {
  readonly requests: Requests;
  readonly answer: Deferred<string>;
  readonly outcome: Promise<string>;
  readonly failures: unknown[];
} {
  const requests = new Requests();
  const answer = deferred<string>();
  const failures: unknown[] = [];
  const again = (error: unknown): Promise<string> => {
    failures.push(error);
    return failures.length === 1
      ? Promise.resolve('again')
      : Promise.reject(new Error('nobody listens to this'));
  };
  const outcome = requests.send(send ?? (() => answer.promise), 0, again);
  return { requests, answer, outcome, failures };
}

describe('a request under way', () => {
  it('is answered, and nothing is sent again', async () => {
    const { answer, outcome, failures } = sent();
    answer.resolve('done');
    expect(await outcome).toBe('done');
    expect(failures).toEqual([]);
  });

  it('is sent again when it fails, also at once', async () => {
    const late = sent();
    late.answer.reject('late');
    expect(await late.outcome).toBe('again');
    const soon = sent(() => {
      throw new Error('soon');
    });
    expect(await soon.outcome).toBe('again');
    expect([...late.failures, ...soon.failures]).toEqual(['late', new Error('soon')]);
  });

  it('is sent again once when it was given up on, however it is answered afterwards', async () => {
    for (const end of ['resolve', 'reject'] as const) {
      const { requests, answer, outcome, failures } = sent();
      requests.giveUp(0, () => 'no answer');
      answer[end]('too late');
      expect(await outcome).toBe('again');
      expect(failures).toEqual(['no answer']);
    }
  });
});
