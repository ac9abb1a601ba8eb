/** A thread that may import our sources: it first needs what turns TypeScript into JavaScript. */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** Runs the body of `work(source, data)` in a thread, `source` being the module at `path`; settles as it does. */
export function inThread(
  path: string,
  work: string,
  data: Readonly<Record<string, unknown>>,
  options: WorkerOptions = {},
): Promise<void> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx/package.json'));
  const program = `
    const { loader, module, data } = require('node:worker_threads').workerData;
    import(loader).then(async ({ register }) => {
      register();
      const source = await import(module);
      ${work}
    });
  `;
  const loader = new URL('./dist/esm/api/index.mjs', tsx).href;
  const workerData = { loader, module: pathToFileURL(path).href, data };
  const thread = new Worker(program, { ...options, eval: true, workerData });
  return new Promise((resolve, reject) => {
    thread.once('error', reject);
    thread.once('exit', () => resolve());
  });
}
