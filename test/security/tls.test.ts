/** TLS on every listener: certificates, names, revocation, and what is not TLS. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { locate } from '../../scripts/packages.mjs';
import { utf8 } from '../../src/base/bytes.ts';
import { openEngine } from '../../src/client.ts';
import { AuthService, KVService } from '../../src/wire/messages/services.ts';
import type { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { serving } from '../servers/holdfast.ts';
import { refusedCall, Stage } from './stage.ts';

const READ = { key: utf8('a') };

/** A small authority: issues and revokes certificates with openssl. */
class Authority {
  readonly directory = mkdtempSync(join(tmpdir(), 'holdfast-ca-'));
  #issued = 0;

  constructor() {
    this.#openssl([
      ...['req', '-x509', ...KEY, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2'],
      ...['-subj', '/CN=test authority'],
    ]);
    writeFileSync(join(this.directory, 'index.txt'), '');
    writeFileSync(join(this.directory, 'crlnumber'), '01\n');
    const config = '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\n';
    const rest = 'default_md=sha256\ndefault_crl_days=2\ncertificate=ca.pem\nprivate_key=ca.key\n';
    writeFileSync(join(this.directory, 'ca.cnf'), config + rest);
  }

  get ca(): string {
    return this.read('ca.pem');
  }

  issue(subject: string, names = 'DNS:localhost,IP:127.0.0.1'): { cert: string; key: string } {
    const name = `c${++this.#issued}`;
    this.#openssl([
      'req',
      ...KEY,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      subject,
    ]);
    writeFileSync(join(this.directory, `${name}.ext`), `subjectAltName=${names}\n`);
    this.#openssl([
      ...['x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-days', '2'],
      ...['-set_serial', String(1_000 + this.#issued), '-extfile', `${name}.ext`],
      ...['-out', `${name}.pem`],
    ]);
    return { cert: this.read(`${name}.pem`), key: this.read(`${name}.key`) };
  }

  /** The list of what has been revoked, with one more on it. */
  revoke(cert: string | undefined): string {
    const config = ['ca', '-config', 'ca.cnf'];
    if (cert !== undefined) {
      writeFileSync(join(this.directory, 'revoked.pem'), cert);
      this.#openssl([...config, '-revoke', 'revoked.pem']);
    }
    this.#openssl([...config, '-gencrl', '-out', 'list.crl']);
    this.#openssl(['crl', '-in', 'list.crl', '-outform', 'DER', '-out', 'list.der']);
    return this.read('list.crl');
  }

  read(name: string): string {
    return readFileSync(join(this.directory, name), 'utf8');
  }

  #openssl(args: readonly string[]): void {
    const made = spawnSync('openssl', args, { cwd: this.directory, encoding: 'utf8' });
    if (made.status !== 0) throw new Error(`openssl ${args[0]} failed: ${made.stderr}`);
  }
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

describe.skipIf(!locate('openssl'))('TLS (openssl makes the certificates)', () => {
  let authority: Authority;
  let own: { cert: string; key: string };
  let ann: { cert: string; key: string };

  beforeAll(() => {
    authority = new Authority();
    own = authority.issue('/CN=localhost');
    ann = authority.issue('/CN=ann');
  });

  afterAll(() => rmSync(authority.directory, { recursive: true, force: true }));

  const mutual = (crl?: string): object => ({
    ...own,
    ca: authority.ca,
    requestCert: true,
    rejectUnauthorized: true,
    ...(crl === undefined ? {} : { crl }),
  });
  const trusting = (more: ConnectionOptions = {}): ConnectionOptions => ({
    ca: authority.ca,
    servername: 'localhost',
    ...more,
  });
  const reads = async (client: GrpcClient): Promise<boolean> => {
    const said = await client.unary(KVService.Range, READ).then(
      () => true,
      () => false,
    );
    client.destroy();
    return said;
  };
  const health = (port: number, more: object): Promise<boolean> =>
    new Promise((resolve) => {
      const options = { host: '127.0.0.1', port, path: '/health', agent: false, ...trusting() };
      const sent = request({ ...options, ...more }, (response) => {
        response.resume();
        resolve(response.statusCode === 200);
      });
      sent.on('error', () => resolve(false));
      sent.end();
    });

  test('a certificate with the wrong name is refused', async () => {
    const wrong = authority.issue('/CN=other.example', 'DNS:other.example');
    await using stage = await Stage.open({ tls: wrong });
    expect(await reads(stage.client({ tls: trusting() }))).toBe(false);
    const named = trusting({ servername: 'other.example' });
    expect(await reads(stage.client({ tls: named }))).toBe(true);
  });

  test('no configuration falls back to plain text in silence: either side alone gets nowhere', async () => {
    await using secure = await Stage.open({ tls: own });
    await using plain = await Stage.open();
    expect(await reads(secure.client({ deadlineMs: 2_000 }))).toBe(false);
    expect(await reads(plain.client({ tls: trusting(), deadlineMs: 2_000 }))).toBe(false);
  });

  test('a revoked certificate is refused on every listener', async () => {
    const lost = authority.issue('/CN=lost');
    const crl = authority.revoke(lost.cert);
    const path = join(authority.directory, 'server.sock');
    await using tcp = await Stage.open({ tls: mutual(crl) });
    await using unix = await Stage.open({ tls: mutual(crl), listen: { path } });
    for (const [certificate, good] of [
      [ann, true],
      [lost, false],
    ] as const) {
      const tls = trusting(certificate);
      expect(await reads(tcp.client({ tls }))).toBe(good);
      expect(await reads(unix.client({ tls, path }))).toBe(good);
      expect(await health(tcp.server.port, certificate)).toBe(good);
    }
    expect(await reads(tcp.client({ tls: trusting() }))).toBe(false);
    expect(await health(tcp.server.port, {})).toBe(false);
  });

  test('the command line takes a revocation list as DER, as etcd does', async () => {
    const lost = authority.issue('/CN=lost for DER');
    authority.revoke(lost.cert);
    const at = (name: string): string => join(authority.directory, name);
    const run = await serving([
      ...['--engine', 'memory:', '--cert', at('c1.pem'), '--key', at('c1.key')],
      ...['--client-ca', at('ca.pem'), '--client-crl', at('list.der')],
    ]);
    try {
      expect(await health(run.port, ann)).toBe(true);
      expect(await health(run.port, lost)).toBe(false);
    } finally {
      run.child.kill('SIGKILL');
    }
  });

  test('the command line takes the ciphers of TLS 1.2', async () => {
    const at = (name: string): string => join(authority.directory, name);
    const run = await serving([
      ...['--engine', 'memory:', '--cert', at('c1.pem'), '--key', at('c1.key')],
      ...['--ciphers', 'ECDHE-ECDSA-AES256-GCM-SHA384'],
    ]);
    const asks = (ciphers: string): Promise<boolean> =>
      health(run.port, { ciphers, maxVersion: 'TLSv1.2' });
    try {
      expect(await asks('ECDHE-ECDSA-AES256-GCM-SHA384')).toBe(true);
      expect(await asks('ECDHE-ECDSA-AES128-GCM-SHA256')).toBe(false);
    } finally {
      run.child.kill('SIGKILL');
    }
  });

  test('a revocation list and a certificate are replaced without a restart', async () => {
    const lost = authority.issue('/CN=lost too');
    await using stage = await Stage.open({ tls: mutual(authority.revoke(undefined)) });
    const tls = trusting(lost);
    expect(await reads(stage.client({ tls }))).toBe(true);
    stage.server.reload(mutual(authority.revoke(lost.cert)) as never);
    expect(await reads(stage.client({ tls }))).toBe(false);
    expect(await reads(stage.client({ tls: trusting(ann) }))).toBe(true);
    const renewed = authority.issue('/CN=new', 'DNS:renewed.example');
    stage.server.reload({ ...mutual(), ...renewed } as never);
    const named = trusting({ ...ann, servername: 'renewed.example' });
    expect(await reads(stage.client({ tls: named }))).toBe(true);
    const { log } = stage.server.backend.audit;
    await log!.note({ act: 'x' });
    const reloads = (await log!.entries(1, 0)).filter(({ act }) => act === 'server.certificates');
    const shown = reloads.map(({ subject }) => subject);
    expect(shown).toEqual(Array(2).fill(expect.stringMatching(/^sha-256 (?:[0-9A-F]{2}:?){32}$/)));
    expect(shown[0]).not.toBe(shown[1]);
  });

  test('a certificate’s common name is a user, with that user’s rights and no more', async () => {
    await using stage = await Stage.open({ tls: mutual(), certificateUsers: true });
    await stage.guarded({ tls: trusting(ann) });
    const client = stage.client({ tls: trusting(ann) });
    await client.unary(KVService.Put, { key: utf8('a') });
    const said = await refusedCall(client, KVService.Put, { key: utf8('z') });
    expect(said?.message).toBe('etcdserver: permission denied');
    const stranger = stage.client({ tls: trusting(authority.issue('/CN=nobody here')) });
    expect(await refusedCall(stranger, KVService.Range, READ)).toBeDefined();
    const nameless = stage.client({ tls: trusting(authority.issue('/O=only an organisation')) });
    const empty = await refusedCall(nameless, KVService.Range, READ);
    expect(empty?.message).toBe('etcdserver: user name is empty');
  });

  test('a client certificate opens no internal method: it is a user like any other', async () => {
    await using stage = await Stage.open({ tls: mutual(), certificateUsers: true });
    await stage.guarded({ tls: trusting(ann) });
    const client = stage.client({ tls: trusting(ann) });
    const said = await refusedCall(client, AuthService.UserList, {});
    expect(said?.message).toBe('etcdserver: permission denied');
    const { log } = stage.server.backend.audit;
    await log!.note({ act: 'x' });
    const [denied] = (await log!.entries(1, 0)).filter(({ act }) => act === 'user.list');
    expect(denied).toMatchObject({ user: 'ann', certificate: 'ann', outcome: 'refused' });
  });

  test('TLS settings apply to every endpoint, however it was found', async () => {
    await using secure = await Stage.open({ tls: own });
    await using plain = await Stage.open();
    const url = (port: number): string => `etcds://127.0.0.1:${port}`;
    const options = { tls: trusting(), callTimeoutMs: 2_000, attemptMs: 500, failFast: true };
    const engine = await openEngine(url(secure.server.port), options);
    await engine.range({ key: utf8('a') });
    await engine.close();
    // A second endpoint without TLS is not spoken to in plain text: it is no endpoint.
    const both = openEngine(`${url(plain.server.port)},127.0.0.1:${plain.server.port}`, options);
    await expect(both).rejects.toMatchObject({ code: 'unavailable' });
    const untrusting = openEngine(url(secure.server.port), { ...options, tls: {} });
    await expect(untrusting).rejects.toMatchObject({ code: 'unavailable' });
  });
});
