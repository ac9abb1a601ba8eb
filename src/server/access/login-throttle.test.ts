import { request } from 'node:http';
import { describe, expect, test } from 'vitest';
import { PASSWORDS, refusedCall, Stage } from '../../../test/security/stage.ts';
import { ManualClock } from '../../base/clock.ts';
import { deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import { turn } from '../../testing/waiting.ts';
import { AuthService } from '../../wire/messages/services.ts';
import { FREE_FAILURES, LoginThrottle, networkOf } from './login-throttle.ts';

const HERE = '192.0.2.1';
const ELSEWHERE = '192.0.2.2';
const { signal } = new AbortController();
const ann = { name: 'ann', address: HERE, signal };

class Guessing {
  readonly clock = new ManualClock();
  readonly throttle: LoginThrottle;
  /** Passwords that were looked at. */
  looked = 0;

  constructor(entriesMax?: number) {
    this.throttle = new LoginThrottle(this.clock, entriesMax);
  }

  async try(right: boolean, address: string = HERE, name = 'ann'): Promise<boolean | string> {
    const matches = async (): Promise<boolean> => {
      this.looked++;
      return right;
    };
    return this.throttle
      .attempt({ name, address, signal }, matches)
      .catch((error: unknown) => HoldfastError.from(error).code);
  }

  async wrong(times: number, address?: string, name?: string): Promise<void> {
    for (let i = 0; i < times; i++) expect(await this.try(false, address, name)).toBe(false);
  }
}

describe('guessing a password', () => {
  test('is refused after a few wrong ones, for a pause that doubles up to a minute', async () => {
    const guessing = new Guessing();
    await guessing.wrong(FREE_FAILURES);
    for (const pauseMs of [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]) {
      const { looked } = guessing;
      guessing.clock.advance(pauseMs - 1);
      expect(await guessing.try(true)).toBe('resource-exhausted');
      // Not even looked at: neither time nor answer tells whether it was right.
      expect(guessing.looked).toBe(looked);
      guessing.clock.advance(1);
      await guessing.wrong(1);
    }
  });

  test('holds up neither the same user elsewhere nor another user here', async () => {
    const guessing = new Guessing();
    await guessing.wrong(FREE_FAILURES);
    expect(await guessing.try(true)).toBe('resource-exhausted');
    expect(await guessing.try(true, ELSEWHERE)).toBe(true);
    expect(await guessing.try(true, HERE, 'eve')).toBe(true);
  });

  test('the right one ends it, and what is long ago is forgotten', async () => {
    const guessing = new Guessing();
    await guessing.wrong(FREE_FAILURES);
    guessing.clock.advance(1_000);
    expect(await guessing.try(true)).toBe(true);
    await guessing.wrong(FREE_FAILURES);
    guessing.clock.advance(1_000_000);
    await guessing.wrong(FREE_FAILURES);
    expect(await guessing.try(true)).toBe('resource-exhausted');
  });

  test('in a burst has no more than the free ones looked at', async () => {
    const guessing = new Guessing();
    const burst = Array.from({ length: 1_000 }, () => guessing.try(false));
    const answers = await Promise.all(burst);
    expect(guessing.looked).toBe(FREE_FAILURES);
    expect(answers.filter((answer) => answer === 'resource-exhausted').length).toBe(995);
  });

  test('a burst of right ones all pass, a few at a time', async () => {
    const { throttle } = new Guessing();
    let running = 0;
    let most = 0;
    const gate = deferred<void>();
    const logIn = (): Promise<boolean> =>
      throttle.attempt(ann, async () => {
        most = Math.max(most, ++running);
        await gate.promise;
        running--;
        return true;
      });
    const burst = Array.from({ length: 200 }, logIn);
    await turn();
    expect(running).toBe(FREE_FAILURES);
    gate.resolve();
    expect((await Promise.all(burst)).every((right) => right)).toBe(true);
    expect(most).toBe(FREE_FAILURES);
    expect(throttle.size).toBe(0);
  });

  test('who goes away while it waits has nothing computed for it', async () => {
    const { throttle } = new Guessing();
    const gate = deferred<boolean>();
    const running = Array.from({ length: FREE_FAILURES }, () =>
      throttle.attempt(ann, () => gate.promise),
    );
    const caller = new AbortController();
    let looked = false;
    const waiting = throttle.attempt({ ...ann, signal: caller.signal }, async () => {
      looked = true;
      return true;
    });
    await turn();
    caller.abort(new HoldfastError('cancelled', 'the caller went away'));
    await expect(waiting).rejects.toThrow('the caller went away');
    gate.resolve(true);
    await Promise.all(running);
    expect(looked).toBe(false);
    expect(throttle.size).toBe(0);
  });

  test('a check that fails by itself neither counts nor blocks', async () => {
    const guessing = new Guessing();
    const broken = (): Promise<boolean> => Promise.reject(new Error('no memory'));
    for (let i = 0; i < 2 * FREE_FAILURES; i++) {
      await expect(guessing.throttle.attempt(ann, broken)).rejects.toThrow('no memory');
    }
    expect(await guessing.try(true)).toBe(true);
  });

  test('costs bounded memory, whatever names are tried', async () => {
    const guessing = new Guessing(100);
    for (let i = 0; i < 1_000; i++) await guessing.wrong(1, HERE, `${i}${'x'.repeat(10_000)}`);
    expect(guessing.throttle.size).toBe(100);
  });
});

test('addresses of one customer count as one', () => {
  expect(networkOf('192.0.2.7')).toBe('192.0.2.7');
  expect(networkOf('::ffff:192.0.2.7')).toBe('192.0.2.7');
  expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2');
  expect(networkOf('2001:0db8:1:2::9')).toBe('2001:db8:1:2');
  expect(networkOf('2001:db8::9')).toBe('2001:db8:0:0');
  expect(networkOf('fe80::1%eth0')).toBe('fe80:0:0:0');
  expect(networkOf('::1')).toBe('0:0:0:0');
  expect(networkOf('')).toBe('');
});

describe('a server', () => {
  test('refuses further guesses with a status, and lets the user in elsewhere', async () => {
    await using stage = await (await Stage.open()).guarded();
    const login = { name: 'ann', password: 'a guess' };
    const guess = async (): Promise<unknown> =>
      (await refusedCall(stage.client(), AuthService.Authenticate, login))?.code;
    for (let i = 0; i < FREE_FAILURES; i++) expect(await guess()).toBe(3);
    expect(await guess()).toBe(8);
    const right = { ...login, password: PASSWORDS.ann };
    expect(await logInFrom('127.0.0.1', stage, right)).toBe(429);
    expect(await logInFrom('127.0.0.2', stage, right)).toBe(200);
  });
});

/** The HTTP status of a login whose connection has this address at its near end. */
function logInFrom(localAddress: string, { server }: Stage, login: object): Promise<number> {
  const place = { host: '127.0.0.1', port: server.port, path: '/v3/auth/authenticate' };
  return new Promise((resolve, reject) => {
    const options = { ...place, localAddress, method: 'POST', agent: false };
    const sent = request(options, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    sent.on('error', reject);
    sent.end(JSON.stringify(login));
  });
}
