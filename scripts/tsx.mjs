/** Runs a TypeScript file of this repository, by its sources, in a process of its own. */
import { spawn } from 'node:child_process';

const FLAGS = ['--conditions=holdfast/source', '--import', 'tsx'];

export function runSource(file, args = []) {
  return runNode([...FLAGS, file, ...args]);
}

/** Hands terminal and signals to the program and answers its exit code. */
export function runNode(args) {
  const child = spawn(process.execPath, args, { stdio: 'inherit' });
  // Without a listener the signal would end this process and leave the program running.
  const forward = (signal) => child.kill(signal);
  process.on('SIGINT', forward).on('SIGTERM', forward);
  return new Promise((resolve) => {
    child.on('error', (error) => {
      console.error(error.message);
      resolve(1);
    });
    child.on('exit', (code, signal) => resolve(signal ? 1 : (code ?? 1)));
  });
}
