/**
 * Whether somebody still answers. He is asked again and again; when so many questions in a row as
 * patience has room for brought no answer, he stands still.
 *
 * Questions are counted, not the time since the last answer: a process that was stopped itself finds
 * its timers late and the answers unread, and must read before it judges.
 */
import type { Clock } from '../base/clock.ts';
import { sleep } from '../base/clock.ts';

export interface SignsOptions {
  readonly clock: Clock;
  /** Silence of so long is no pause any more. */
  readonly patienceMs: number;
  ask(): Promise<unknown>;
  /** Called once, when a question was refused or patience ended; nobody is asked any more. */
  failed(end: 'refused' | 'silent'): void;
}

/** Into how many parts patience is cut. */
const PARTS = 4;

/** Watches until it is stopped, by the function it returns. */
export function watchForSigns({ clock, patienceMs, ask, failed }: SignsOptions): () => void {
  let silentParts = 0;
  let asking = false;
  let cancel = (): void => {};
  const end = (how: 'refused' | 'silent'): void => {
    stop();
    failed(how);
  };
  let over = false;
  const stop = (): void => {
    over = true;
    cancel();
  };
  const question = (): void => {
    asking = true;
    silentParts = 0;
    ask().then(
      () => {
        asking = false;
      },
      () => {
        if (!over) end('refused');
      },
    );
  };
  const look = (): void => {
    if (!asking) question();
    else if (++silentParts >= PARTS) end('silent');
    if (!over) cancel = clock.wakeAt(clock.now() + patienceMs / PARTS, look);
  };
  look();
  return stop;
}

/** Patience alone, cut into parts for the same reason. */
export async function patience(clock: Clock, patienceMs: number): Promise<void> {
  for (let part = 0; part < PARTS; part++) await sleep(clock, patienceMs / PARTS);
}
