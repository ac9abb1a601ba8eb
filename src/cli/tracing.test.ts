import { expect, test } from 'vitest';
import { type Serving, saying, serving } from '../../test/servers/holdfast.ts';

const PRELOAD = new URL('../../test/support/preload-spans.ts', import.meta.url).pathname;

async function ask(run: Serving): Promise<void> {
  const body = JSON.stringify({ key: 'YQ==' });
  await fetch(`http://127.0.0.1:${run.port}/v3/kv/range`, { method: 'POST', body });
}

async function stopped(run: Serving): Promise<string> {
  run.child.kill('SIGTERM');
  await run.ended;
  return run.said();
}

test('a server that is started with an SDK makes spans', async () => {
  const run = await serving(['--engine', 'memory:'], ['--import', PRELOAD]);
  await ask(run);
  await saying(run, /span etcdserverpb\.KV\/Range/);
  expect(await stopped(run)).toContain('tracing with OpenTelemetry');
});

test('control: one that is not makes none', async () => {
  const run = await serving(['--engine', 'memory:']);
  await ask(run);
  expect(await stopped(run)).not.toMatch(/span |OpenTelemetry/);
});
