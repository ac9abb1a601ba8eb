import { Writable } from 'node:stream';
import pino from 'pino';
import { prettyFactory } from 'pino-pretty';
import { describe, expect, test } from 'vitest';
import { type Logger, logger } from './log.ts';

/** A stream that takes what it is given, and all of it at once. */
function collecting(): { readonly out: NodeJS.WriteStream; lines(): string[] } {
  let text = '';
  const out = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString();
      done();
    },
  });
  return { out: out as never, lines: () => text.split('\n').filter((line) => line !== '') };
}

function written(tell: (log: Logger) => void): string[] {
  const { out, lines } = collecting();
  tell(logger(out));
  return lines();
}

function parsed(tell: (log: Logger) => void): Record<string, unknown> {
  const [line = ''] = written(tell);
  return JSON.parse(line) as Record<string, unknown>;
}

describe('a line', () => {
  test.each(['info', 'warn', 'error'] as const)('at %s is what pino would write', (level) => {
    const { out, lines } = collecting();
    pino({}, out)[level]({ url: 'http://127.0.0.1:2379', connections: 3 }, 'serving "it"');
    const [theirs = ''] = lines();
    const [ours = ''] = written(({ log }) =>
      log(level, 'serving "it"', { url: 'http://127.0.0.1:2379', connections: 3 }),
    );
    const atOneTime = (line: string): string => line.replace(/"time":\d{13},/, '"time":0,');
    expect(atOneTime(ours)).toBe(atOneTime(theirs));
    expect(atOneTime(ours)).toContain('"time":0,');
  });

  test('is read by pino-pretty', () => {
    const pretty = prettyFactory({ colorize: false, translateTime: 'SYS:yyyy' });
    const [line = ''] = written(({ log }) =>
      log('error', 'a request met a fault', { err: new TypeError('no such thing') }),
    );
    const text = pretty(line);
    expect(text).toMatch(/^\[\d{4}\] ERROR \(\d+\): a request met a fault\n/);
    expect(text).toContain('TypeError: no such thing');
    expect(text).toContain('log.test.ts');
  });

  test('control: pino-pretty leaves a line of another form as it is', () => {
    const line = JSON.stringify({ time: '2024-01-01', level: 'error', message: 'a fault' });
    expect(prettyFactory({ colorize: false })(line)).not.toContain('ERROR (');
  });

  test('stays one line of JSON, whatever is in it', () => {
    const circle: Record<string, unknown> = { big: 2n ** 62n, bytes: new Uint8Array(3) };
    circle.self = circle;
    const lines = written(({ log }) =>
      log('info', 'two\nlines', { circle, msg: 'mine', level: 99, long: 'x'.repeat(100_000) }),
    );
    expect(lines).toHaveLength(1);
    const line = JSON.parse(lines[0]!) as Record<string, unknown>;
    expect(line).toMatchObject({ level: 30, msg: 'two\nlines', msg_: 'mine', level_: 99 });
    expect(line.circle).toMatchObject({ big: String(2n ** 62n), bytes: '[3 bytes]' });
    expect(lines[0]!.length).toBeLessThan(6_000);
  });
});

describe('a threshold', () => {
  test('keeps out what is below it, and can be moved', () => {
    const lines = written((made) => {
      made.log('debug', 'one');
      made.threshold = 'debug';
      made.log('debug', 'two');
      made.threshold = 'error';
      made.log('warn', 'three');
      made.log('error', 'four');
      made.threshold = 'silent';
      made.log('error', 'five');
    });
    expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(['two', 'four']);
  });
});

describe('secrets', () => {
  const SECRET = 'p4ss-w0rd-of-ann';

  test.each([
    ['a field', { password: SECRET }],
    ['a field inside', { user: { name: 'ann', clientSecret: SECRET } }],
    ['a list', { cookies: [SECRET] }],
    ['a header', { headers: { Authorization: `Bearer ${SECRET}` } }],
    ['a header in a text', { line: `authorization: Bearer ${SECRET}` }],
    ['basic credentials', { line: `Basic ${SECRET}` }],
    ['a login token', { token: `${SECRET}.17` }],
    ['another name of it', { authToken: SECRET }],
    ['a URL', { engine: `postgres://ann:${SECRET}@db/locks` }],
    ['a URL with only a name', { engine: `https://${SECRET}@host/` }],
    ['an assignment', { reason: `cannot parse password=${SECRET}&x=1` }],
    ['JSON in a text', { body: `{"name":"ann","password":"${SECRET}"}` }],
    ['an error', { err: new Error(`etcd://ann:${SECRET}@a:2379 is down`) }],
    ['the cause of an error', { err: new Error('x', { cause: new Error(`secret=${SECRET}`) }) }],
    ['a sealed token', { line: `hf1.k1.${SECRET}AAAAAAAAAAAA` }],
    ['a key', { pem: `-----BEGIN PRIVATE KEY-----\n${SECRET}\n-----END PRIVATE KEY-----` }],
  ])('in %s are left out', (_, details) => {
    const [line] = written(({ log }) => log('info', 'x', details));
    expect(line).not.toContain(SECRET);
    expect(line).toContain('[redacted]');
  });

  test('in the message are left out', () => {
    const line = parsed(({ log }) => log('info', `cannot open postgres://ann:${SECRET}@db/locks`));
    expect(line.msg).toBe('cannot open postgres://[redacted]@db/locks');
  });

  test('control: what is no secret stays', () => {
    const details = {
      token: 33n,
      mark: '34',
      holder: 'ann@host:17',
      reason: 'stale: token 33 < mark 34',
      url: 'http://127.0.0.1:2379',
      keyId: 'k1',
    };
    const line = parsed(({ log }) => log('info', 'x', details));
    expect(line).toMatchObject({ ...details, token: '33' });
  });
});
