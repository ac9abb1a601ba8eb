/** The watchdog against a real process whose event loop stands still. */
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

const CLIENT = JSON.stringify(resolve('src/client.ts'));

/** Runs a program in a process of its own; answers how it ended and what it wrote. */
function run(
  program: string,
): Promise<{ signal: string | null; code: number | null; out: string }> {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '--eval', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let out = '';
  child.stdout.on('data', (bytes) => {
    out += String(bytes);
  });
  const deadline = setTimeout(() => child.kill('SIGTERM'), 45_000);
  return new Promise((done) =>
    child.once('close', (code, signal) => {
      clearTimeout(deadline);
      done({ signal, code, out });
    }),
  );
}

function program(options: string, work: string): string {
  return `
    const { connect } = await import(${CLIENT});
    const hf = await connect('memory:', { ttl: 500, ${options} });
    const grant = await hf.lock('a').acquire();
    const block = (ms) => { const end = Date.now() + ms; while (Date.now() < end); };
    ${work}
    console.log('survived');
    await hf.close();
    process.exit(0);
  `;
}

describe('the watchdog', () => {
  test('ends a process that stands still past its deadline while it holds something', async () => {
    const { signal, out } = await run(program('watchdog: true', 'block(20_000);'));
    expect(signal).toBe('SIGKILL');
    expect(out).not.toContain('survived');
  });

  test('leaves a process alone that holds nothing', async () => {
    const work = 'await grant.release(); block(1_500);';
    const { code, out } = await run(program('watchdog: true', work));
    expect(code).toBe(0);
    expect(out).toContain('survived');
  });

  test('leaves a process alone that is told of its loss and runs', async () => {
    const work = `
      await hf.engine.revokeLease(grant.session.id);
      await new Promise((resolve) => grant.signal.addEventListener('abort', resolve));
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    `;
    const { code } = await run(program('watchdog: true', work));
    expect(code).toBe(0);
  });

  test('without it a standing process survives and only its next check tells', async () => {
    const work = `block(1_500); try { grant.ensureHeld(); } catch (error) { console.log(error.details.reason); }`;
    const { out } = await run(program('', work));
    expect(out).toContain('suspended');
  });
});
