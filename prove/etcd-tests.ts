/**
 * etcd's own integration tests, of its server and of its Go client, against our server.
 *
 * Debian ships the sources of etcd 3.4 with their tests. They are compiled as they are, but for the lines
 * in which a member of a test cluster begins to answer gRPC and its metrics are read: there our server
 * answers. The members go on beside it, so a test that asks them and not their clients' connections asks
 * etcd. A test that fails must stand, with the reason, in the table of docs/etcd-tests.md; the long form
 * runs those too. Both take minutes: the tests wait for leases to end.
 *
 * Control: some of them against a server of ours that refuses every write must fail because of that.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import type { EmbeddedOptions } from '../src/engine/options.ts';
import { Servers } from './etcd-tests/servers.ts';

const GOPATH = '/usr/share/gocode';
const ETCD = 'go.etcd.io/etcd';
const SOURCES = join(GOPATH, 'src', ETCD);
/** Those of the server that speak v3, and those of the client. */
const PACKAGES = [
  { name: 'integration', files: /^v3.*_test\.go$/ },
  { name: 'clientv3/integration', files: /_test\.go$/ },
] as const;
/** What etcd's cluster does itself, and what it does instead. */
const CHANGES = [
  [
    'go m.grpcServer.Serve(m.grpcListener)',
    'm.serverClosers = append(m.serverClosers, serveHoldfast(m, m.grpcListener))',
  ],
  ['cli.Get(m.ClientURLs[0].String() + "/metrics")', 'holdfastMetrics(m)'],
  ['cli := &http.Client{Transport: tr}', '_ = tr'],
] as const;
const AT_ONCE = 2;
const TEST_SECONDS_MAX = 90;
const CONTROL_TESTS = /^(TestV3PutOverwrite|TestV3TxnRevision|TestV3LeaseSwitch|TestKVPut)$/;
const REFUSAL = 'request is too large';

export const experiment: Experiment = {
  about: "etcd's own integration tests pass against our server, or the difference is explained",
  needs: {
    go: 'golang-go',
    [join(SOURCES, 'integration/cluster.go')]: 'golang-etcd-server-dev',
  },
  run,
};

interface Test {
  readonly package: string;
  readonly name: string;
}

interface Outcome {
  readonly test: Test;
  readonly result: 'passed' | 'failed' | 'skipped';
  readonly output: string;
}

async function run(context: Context): Promise<Report> {
  const binaries = await build(context);
  const explained = explanations();
  const chosen = typeof context.options.only === 'string' ? new RegExp(context.options.only) : /^/;
  const tests = PACKAGES.flatMap(testsOf).filter(({ name }) => chosen.test(name));
  const asked = tests.filter(({ name }) => context.long || !explained.has(name));
  const outcomes = await tryAll(context, binaries, asked, {});
  const failed = outcomes.filter(({ result }) => result === 'failed');
  const unexplained = failed.filter(({ test }) => !explained.has(test.name));
  for (const { test, output } of unexplained) context.log(`${test.name}\n${lastLines(output)}`);
  const passed = outcomes.filter(({ result }) => result === 'passed');
  const fine = passed.filter(({ test }) => explained.has(test.name));
  for (const { test } of fine) context.log(`${test.name} stands in the table, and passes`);
  const refused = await tryAll(
    context,
    binaries,
    PACKAGES.flatMap(testsOf).filter(({ name }) => CONTROL_TESTS.test(name)),
    { requestBytesMax: 1 },
  );
  const noticed = refused.filter(
    ({ result, output }) => result === 'failed' && output.includes(REFUSAL),
  );
  const controlled = noticed.length === refused.length && noticed.length > 0;
  return {
    ok: passed.length > 0 && unexplained.length === 0 && controlled,
    figures: {
      tests: tests.length,
      passed: passed.length,
      "skipped by etcd's own word": outcomes.filter(({ result }) => result === 'skipped').length,
      'failed, explained': failed.length - unexplained.length,
      'not run, explained': tests.length - asked.length,
      'failed, unexplained': unexplained.length,
    },
    control: {
      'tests against a server that refuses every write': refused.length,
      'of them failed because of that': noticed.length,
    },
  };
}

/** A test program for each package: etcd's sources with our answer to gRPC laid over them. */
async function build(context: Context): Promise<ReadonlyMap<string, string>> {
  const cluster = join(SOURCES, 'integration/cluster.go');
  let changed = readFileSync(cluster, 'utf8');
  for (const [from, to] of CHANGES) {
    if (!changed.includes(from)) throw new Error(`${cluster} has no "${from}"`);
    changed = changed.replace(from, to);
  }
  const changedPath = join(context.scratch, 'cluster.go');
  writeFileSync(changedPath, changed);
  const overlay = join(context.scratch, 'overlay.json');
  const ours = new URL('etcd-tests/holdfast.go', import.meta.url).pathname;
  const Replace = { [cluster]: changedPath, [join(SOURCES, 'integration/holdfast.go')]: ours };
  writeFileSync(overlay, JSON.stringify({ Replace }));
  const binaries = new Map<string, string>();
  for (const { name } of PACKAGES) {
    const binary = join(context.scratch, `${name.replace('/', '-')}.test`);
    const args = ['test', '-vet=off', '-overlay', overlay, '-c', '-o', binary, `${ETCD}/${name}`];
    const built = await finished(context, 'go', args, context.scratch, {
      GO111MODULE: 'off',
      GOPATH,
      GOCACHE: resolve('.cache/go'),
    });
    if (built.code !== 0) throw new Error(`go ${args.join(' ')}:\n${built.output}`);
    binaries.set(name, binary);
    mkdirSync(join(context.scratch, name), { recursive: true });
  }
  for (const fixtures of ['fixtures', 'fixtures-expired']) {
    const from = join(SOURCES, 'integration', fixtures);
    symlinkSync(from, join(context.scratch, 'integration', fixtures));
  }
  return binaries;
}

function testsOf({ name, files }: (typeof PACKAGES)[number]): Test[] {
  const directory = join(SOURCES, name);
  return readdirSync(directory)
    .filter((file) => files.test(file))
    .flatMap((file) => {
      const source = readFileSync(join(directory, file), 'utf8');
      return [...source.matchAll(/^func (Test\w+)\(\w+ \*testing\.T\)/gm)];
    })
    .map(([, test]) => ({ package: name, name: test! }));
}

async function tryAll(
  context: Context,
  binaries: ReadonlyMap<string, string>,
  tests: readonly Test[],
  bend: EmbeddedOptions,
): Promise<Outcome[]> {
  const servers = await Servers.open(join(context.scratch, 'integration'), bend);
  context.cleanup(() => servers.close());
  const queue = [...tests];
  const outcomes: Outcome[] = [];
  const worker = async (): Promise<void> => {
    for (let test = queue.shift(); test; test = queue.shift()) {
      outcomes.push(await tryOne(context, binaries.get(test.package)!, test, servers.url));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return outcomes;
}

async function tryOne(
  context: Context,
  binary: string,
  test: Test,
  control: string,
): Promise<Outcome> {
  const args = [`-test.run=^${test.name}$`, `-test.timeout=${TEST_SECONDS_MAX}s`, '-test.v'];
  const { code, output } = await finished(
    context,
    binary,
    args,
    join(context.scratch, test.package),
    {
      HOLDFAST_CONTROL: control,
      TMPDIR: context.scratch,
    },
  );
  const verdict = new RegExp(`^--- (PASS|SKIP): ${test.name} `, 'm').exec(output)?.[1];
  // What a test leaves running when it has passed is its own affair: etcd's leave some, now and then.
  const leaks = output.includes('Too many goroutines running after all test(s).');
  const ended = code === 0 || leaks;
  const result = !ended || !verdict ? 'failed' : verdict === 'PASS' ? 'passed' : 'skipped';
  return { test, result, output };
}

async function finished(
  context: Context,
  command: string,
  args: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>>,
): Promise<{ readonly code: number | null; readonly output: string }> {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env } });
  context.cleanup(() => child.kill('SIGKILL'));
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return { code, output: Buffer.concat(chunks).toString() };
}

/** What a test said, without the log of its client. */
function lastLines(output: string): string {
  const lines = output.split('\n').filter((line) => line !== '' && !line.startsWith('{'));
  return lines
    .slice(-12)
    .map((line) => `  ${line.slice(0, 300)}`)
    .join('\n');
}

/** The tests in the first column of the table of differences. */
function explanations(): Set<string> {
  const path = new URL('../docs/etcd-tests.md', import.meta.url);
  const rows = readFileSync(path, 'utf8').matchAll(/^\| `(Test\w+)` \|/gm);
  return new Set([...rows].map(([, test]) => test!));
}
