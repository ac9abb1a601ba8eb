/** The dashboard and the alert rules ask for nothing that is not there. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { utf8 } from '../src/base/bytes.ts';
import { openMemoryEngine } from '../src/engine/memory/engine.ts';
import { holdfastMetrics } from '../src/metrics.ts';
import { type RunningServer, serve } from '../src/server/serve.ts';
import {
  KVService,
  LeaseService,
  LockService,
  WatchService,
} from '../src/wire/messages/services.ts';
import { GrpcClient } from '../src/wire/net/grpc-client.ts';
import { installed } from './servers/daemon.ts';

const DASHBOARD = 'docs/observability/dashboard.json';
const ALERTS = 'docs/observability/alerts.yml';
const PAGE = 'docs/observability.md';

/** What Prometheus itself adds to every series. */
const TARGET_LABELS = new Set(['job', 'instance']);
/** What only clients and guards know; everything else must come from the server. */
const ELSEWHERE = new Set([
  'holdfast_lost_total',
  'holdfast_guard_rejected_total',
  'holdfast_guard_admitted_total',
]);

/** Name of a series → names of its labels. */
type Rendered = ReadonlyMap<string, ReadonlySet<string>>;

function rendered(page: string): Rendered {
  const series = new Map<string, Set<string>>();
  for (const line of page.split('\n')) {
    const [, name, labels = ''] = /^([a-z_][a-z0-9_]*)(\{.*\})? \S+$/.exec(line) ?? [];
    if (name === undefined) continue;
    const known = series.get(name) ?? new Set<string>();
    for (const [, label] of labels.matchAll(/[{,]([a-z_]+)="/g)) known.add(label!);
    series.set(name, known);
  }
  return series;
}

interface Asked {
  readonly name: string;
  readonly labels: readonly string[];
}

const PREFIXES = '(?:holdfast|etcd|grpc|process|nodejs)';

/** The series an expression names, each with the labels it selects by. */
function asked(expression: string): Asked[] {
  const found = expression.matchAll(new RegExp(`\\b(${PREFIXES}_[a-z0-9_]+)(\\{[^}]*\\})?`, 'g'));
  return [...found]
    .filter(([, name]) => !/^grpc_(?:code|type|service|method)$/.test(name!))
    .map(([, name, selector = '']) => ({
      name: name!,
      labels: [...selector.matchAll(/([a-z_]+)(?:=~|!~|!=|=)"/g)].map((match) => match[1]!),
    }));
}

function missing(expressions: readonly string[], there: Rendered): string[] {
  return expressions.flatMap(asked).flatMap(({ name, labels }) => {
    const known = there.get(name);
    if (!known) return [`${name} is not rendered`];
    return labels
      .filter((label) => !known.has(label) && !TARGET_LABELS.has(label))
      .map((label) => `${name} has no label ${label}`);
  });
}

function expressionsOfDashboard(): string[] {
  const { panels } = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as {
    panels: { targets?: { expr: string }[] }[];
  };
  return panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
}

function expressionsOfAlerts(): string[] {
  return [...readFileSync(ALERTS, 'utf8').matchAll(/^ +expr: (.+)$/gm)].map((match) => match[1]!);
}

let server: RunningServer;
let client: GrpcClient;
let there: Rendered;

beforeAll(async () => {
  const engine = await openMemoryEngine();
  server = await serve({ engine, listen: { port: 0 } });
  client = new GrpcClient({ port: server.port });
  await client.unary(KVService.Put, { key: utf8('a') });
  await client.unary(KVService.Range, { key: utf8('') }).catch(() => {});
  await client.unary(LeaseService.LeaseGrant, { ID: 7n, TTL: 60 });
  const { key } = await client.unary(LockService.Lock, { name: utf8('a'), lease: 7n });
  await client.unary(LockService.Unlock, { key });
  const watch = client.stream(WatchService.Watch);
  watch.send({ createRequest: { key: utf8('a') } });
  await watch.responses()[Symbol.asyncIterator]().next();
  there = rendered(await (await fetch(`${server.url}/metrics`)).text());
});

afterAll(async () => {
  client.destroy();
  await server.close();
});

describe.each([
  ['the dashboard', expressionsOfDashboard()],
  ['the alert rules', expressionsOfAlerts()],
])('%s', (_, expressions) => {
  const byServer = (expression: string): boolean =>
    asked(expression).every(({ name }) => !ELSEWHERE.has(name));

  test('ask a server for what it renders', () => {
    const own = expressions.filter(byServer);
    expect(own.length).toBeGreaterThan(8);
    expect(missing(own, there)).toEqual([]);
  });

  test('ask clients and guards for what they render', () => {
    const elsewhere = expressions.filter((expression) => !byServer(expression));
    expect(elsewhere.length).toBeGreaterThan(1);
    expect(missing(elsewhere, rendered(holdfastMetrics().render()))).toEqual([]);
  });
});

test('the page tells every metric of the server and of clients and guards', () => {
  const page = readFileSync(PAGE, 'utf8');
  const clients = rendered(holdfastMetrics().render());
  const families = [...there.keys(), ...clients.keys()].map((name) =>
    name.replace(/_seconds_(?:bucket|sum|count)$/, '_seconds'),
  );
  expect([...new Set(families)].filter((name) => !page.includes(`\`${name}`))).toEqual([]);
});

test('control: a name and a label that are not there are found', () => {
  const faults = missing(
    ['rate(holdfast_gone_total[5m]) > 1', 'sum(holdfast_leases{lock="a"})', 'holdfast_leases'],
    there,
  );
  expect(faults).toEqual([
    'holdfast_gone_total is not rendered',
    'holdfast_leases has no label lock',
  ]);
});

test.skipIf(!installed('promtool'))('promtool takes the rules (needs promtool)', () => {
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', ALERTS]);
  expect(`${stdout}${stderr}`).toMatch(/SUCCESS: 12 rules found/);
  expect(status).toBe(0);
});

test.skipIf(!installed('promtool'))('promtool takes the page (needs promtool)', async () => {
  const input = await (await fetch(`${server.url}/metrics`)).text();
  const { stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input });
  // Names that are etcd's and ours by promise are not as its linter likes them.
  const faults = `${stdout}${stderr}`.split('\n').filter((line) => /pars|error/i.test(line));
  expect(faults).toEqual([]);
});
