/**
 * One process of the paused-holder experiment: acquires the real lock on the real authority, reads,
 * thinks, writes, again and again. It checks that it holds the lock before it reads, as a careful
 * program does; what happens between that and its write is what the guard is for.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { connect } from '../../src/client.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { openSubject, type Place, reading } from './subjects.ts';

export interface Task {
  readonly place: Place;
  readonly authority: string;
  readonly name: string;
  readonly ttlMs: number;
}

export type Told =
  | { readonly type: 'thinking'; readonly token: string }
  | {
      readonly type: 'done';
      readonly n: number;
      readonly operation: string;
      readonly token: string;
    }
  | { readonly type: 'refused' }
  | { readonly type: 'failed'; readonly message: string };

const OPERATIONS_PER_GRANT = 3;
const THINK_MS = 40;

const task = JSON.parse(process.argv[2]!) as Task;
const tell = (told: Told): void => void process.send?.(told);
const stopping = new AbortController();
let running = true;
process.on('message', () => {
  running = false;
  stopping.abort();
});
process.on('disconnect', () => process.exit());

const client = await connect(task.authority, {
  ttl: task.ttlMs,
  holder: task.name,
  // Each phase has a line of its own: nobody waits for who was there before.
  namespace: task.place.guarded ? 'guarded/' : 'control/',
});
const subject = await openSubject(task.place);
for (let i = 0; running; i++) {
  try {
    await reign(i);
  } catch (error) {
    if (HoldfastError.is(error, 'stale')) tell({ type: 'refused' });
    else if (running) tell({ type: 'failed', message: String(error) });
    await pause(20);
  }
}
await subject.close();
await client.close();
process.exit();

async function reign(i: number): Promise<void> {
  const grant = await client.lock(task.place.guard).acquire({ signal: stopping.signal });
  try {
    const token = String(grant.token);
    for (let k = 0; k < OPERATIONS_PER_GRANT && running; k++) {
      grant.ensureHeld();
      reading.token = token;
      const { n } = await subject.read();
      tell({ type: 'thinking', token });
      await pause(THINK_MS);
      const entry = { n: n + 1, operation: `${task.name}-${i}-${k}`, token };
      await subject.write(entry);
      tell({ type: 'done', ...entry });
    }
  } finally {
    await grant.release().catch(() => {});
  }
}
