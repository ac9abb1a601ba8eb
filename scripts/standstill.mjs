/**
 * What is known of tests that do not go on: the processes under the test runner, and for each of its
 * workers where it stands. Ends the workers, for only one at a time can be asked.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const STEP_MS = 2_000;
const ANSWER_MS_MAX = 10_000;
const COMMAND_LENGTH_MAX = 160;

/** Prints it. */
export async function whereTheyStand(runner) {
  const processes = [...descendants(runner)];
  for (const { pid, depth } of processes) console.log('  '.repeat(depth) + told(pid));
  for (const { pid, depth } of processes) {
    if (depth > 1) continue;
    console.log(`process ${pid} stands in`);
    for (const line of await stackOf(pid)) console.log(line);
    end(pid);
  }
}

function end(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself meanwhile.
  }
}

function* descendants(pid, depth = 1) {
  if (!existsSync('/proc/self/stat')) return;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(statOf(name)?.[1]) !== pid) continue;
    yield { pid: Number(name), depth };
    yield* descendants(Number(name), depth + 1);
  }
}

/** State, parent and so on; before them the name of the command, in brackets, may hold anything. */
function statOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
  } catch {
    return undefined;
  }
}

function told(pid) {
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    const waits = readFileSync(`/proc/${pid}/wchan`, 'utf8');
    return `${pid} ${statOf(pid)?.[0]} ${waits} ${command.slice(0, COMMAND_LENGTH_MAX)}`;
  } catch {
    return `${pid} has ended`;
  }
}

/** The debugger stops also what runs round and round, but nothing that waits in a system call. */
async function stackOf(pid) {
  const debug = spawn(process.execPath, ['inspect', '-p', String(pid)], { timeout: ANSWER_MS_MAX });
  let said = '';
  debug.stdout.on('data', (data) => {
    said += data;
  });
  debug.stdin.on('error', () => {});
  debug.on('error', () => {});
  const ended = new Promise((resolve) => debug.once('close', resolve));
  for (const line of ['pause', 'bt', '.exit']) {
    await pause(STEP_MS);
    debug.stdin.write(`${line}\n`);
  }
  await ended;
  const frames = said.split('\n').filter((line) => /#\d/.test(line));
  return frames.length > 0 ? frames : ['no JavaScript: it waits for what runs below it, or sleeps'];
}
