/**
 * The connection breaks after the commit and before the answer, at each request of a sequence in
 * turn: every recipe must give what it gives when nothing happens: the same tokens, the same
 * values, and not one commit more. The control retries as a naive client does.
 */
import type { Context, Experiment, Figures, Report } from '../scripts/experiment.ts';
import { text, utf8 } from '../src/base/bytes.ts';
import { ManualClock } from '../src/base/clock.ts';
import { seededRandom } from '../src/base/random.ts';
import { Client } from '../src/client.ts';
import type { Engine } from '../src/engine/contract.ts';
import { openMemoryEngine } from '../src/engine/memory/engine.ts';
import { HoldfastError } from '../src/model/errors.ts';
import { fromKey } from '../src/model/range.ts';
import { EngineWrapper } from '../src/testing/engine-wrapper.ts';
import { PLANTED_BUGS } from '../src/testing/simulation/plants.ts';
import { drain, type Plant } from '../src/testing/simulation/world.ts';

const GIVE_UP_MS = 3_600_000;

/** Which answers are lost, by the number of the request; and whether the request arrives at all. */
interface Loss {
  readonly from: number;
  readonly count: number;
  readonly arrives: boolean;
}

class Counting {
  requests = 0;
  readonly loss: Loss | undefined;

  constructor(loss: Loss | undefined) {
    this.loss = loss;
  }

  async pass<T>(send: () => Promise<T>): Promise<T> {
    const { loss } = this;
    const index = this.requests++;
    const lost = loss !== undefined && index >= loss.from && index < loss.from + loss.count;
    const answer = !lost || loss.arrives ? await send() : undefined;
    if (!lost) return answer as T;
    throw new HoldfastError('unavailable', 'the answer was lost', { outcome: 'unknown' });
  }
}

function losing(engine: Engine, counting: Counting): Engine {
  return new (class extends EngineWrapper {
    override range: Engine['range'] = (...given) => counting.pass(() => engine.range(...given));
    override txn: Engine['txn'] = (...given) => counting.pass(() => engine.txn(...given));
    override grantLease: Engine['grantLease'] = (...given) =>
      counting.pass(() => engine.grantLease(...given));
    override async close(): Promise<void> {}
  })(engine);
}

type Outcome = Readonly<Record<string, string>>;

/** Everything a user can see of one run: what each call answered, and what is left in the store. */
async function outcome(
  loss: Loss | undefined,
  plant: Plant = (engine) => engine,
): Promise<{ readonly seen: Outcome; readonly requests: number }> {
  const clock = new ManualClock();
  const engine = await openMemoryEngine({ clock, random: seededRandom(1) });
  const counting = new Counting(loss);
  const clients = ['a', 'b'].map((holder, i) => {
    const line = plant(losing(engine, counting), clock as never);
    return new Client(line, { clock, random: seededRandom(i + 7), ttl: 600_000, holder }, false);
  });
  let done = false;
  const seen: Record<string, string> = {};
  const work = sequence(clients[0]!, clients[1]!, seen)
    .catch((error: unknown) => {
      seen.failed = String(error);
    })
    .finally(() => {
      done = true;
    });
  await drain();
  while (!done && clock.now() < GIVE_UP_MS) {
    clock.advanceTo(clock.nextAlarmAt() ?? GIVE_UP_MS);
    await drain();
  }
  if (done) await work;
  else seen.failed = 'it did not end';
  const { kvs, header } = await engine.range({ ...fromKey(utf8('\0')), keysOnly: true });
  seen.revision = String(header.revision);
  seen.keys = kvs
    .map(({ key }) => text(key))
    .filter((key) => !key.includes('/done/'))
    .join(' ');
  await engine.close();
  return { seen, requests: counting.requests };
}

async function sequence(a: Client, b: Client, seen: Record<string, string>): Promise<void> {
  const first = await a.lock('lock').acquire();
  seen['lock, first'] = String(first.token);
  let standing = (): void => {};
  const stands = new Promise<void>((resolve) => {
    standing = resolve;
  });
  const waiting = b.lock('lock').acquire({ onWait: () => standing() });
  await stands;
  await first.release();
  const second = await waiting;
  seen['lock, second'] = String(second.token);
  await second.release();
  const leader = await a.election('chair').campaign({ value: '1' });
  seen.leader = String(leader.token);
  await leader.proclaim('2');
  seen.proclaimed = String((await b.election('chair').leader())?.token);
  await leader.resign();
  seen.counted = String(await a.counter('count').add(5));
  seen['counted again'] = String(await a.counter('count').add(5));
  for (let i = 0; i < 2; i++) {
    await a.transact(async (transaction) => {
      const kv = await transaction.get('account');
      transaction.put('account', String(Number(kv ? text(kv.value) : '0') + 7));
    });
  }
  seen.account = await a.transact(async (transaction) =>
    text((await transaction.get('account'))!.value),
  );
  const many = await b.locks(['x', 'y']).acquire();
  seen['multi-lock'] = String(many.token);
  await many.release();
  const reader = await a.readWriteLock('rw').acquire('read');
  seen.reader = String(reader.token);
  await reader.release();
  const permit = await b.semaphore('permits', 2).acquire();
  seen.permit = `${permit.slot} ${permit.token}`;
  await permit.release();
  const member = await b.group('group').join({ value: 'b' });
  seen.member = String(member.token);
  await member.leave();
  seen.once = String((await a.once('name').claim('ada')).token);
  seen['number of the sequence'] = String(await a.sequence('ids', { block: 10 }).next());
  const latch = a.latch('latch');
  await latch.set(2);
  seen.latch = String(await latch.countDown());
  const cell = a.cell('cell');
  seen.cell = String(await cell.compareAndSet(0, 'x'));
  const last = await a.lock('lock').acquire();
  seen['lock, last'] = String(last.token);
  await last.release();
}

function differences(wanted: Outcome, seen: Outcome): string[] {
  const names = new Set([...Object.keys(wanted), ...Object.keys(seen)]);
  return [...names]
    .filter((name) => wanted[name] !== seen[name])
    .map((name) => `${name}: ${seen[name]} instead of ${wanted[name]}`);
}

export const experiment: Experiment = {
  about: 'an answer lost at every request: same tokens, same values, nothing done twice',
  async run({ log }: Context): Promise<Report> {
    const { seen: wanted, requests } = await outcome(undefined);
    for (const [name, value] of Object.entries(wanted)) log(`${name}: ${value}`);
    let runs = 0;
    let wrong = 0;
    for (const arrives of [true, false]) {
      for (const count of [1, 2, 3]) {
        for (let from = 0; from < requests; from++) {
          const { seen } = await outcome({ from, count, arrives });
          const found = differences(wanted, seen);
          runs++;
          if (found.length === 0) continue;
          if (wrong++ < 10) {
            const what = arrives ? 'answers' : 'requests';
            log(`${count} ${what} lost from request ${from}: ${found.join('; ')}`);
          }
        }
      }
    }
    const control = await naive(wanted, requests);
    return {
      ok: wrong === 0 && !('failed' in wanted) && control.broke === true,
      figures: { 'requests in the sequence': requests, runs, 'runs that differ': wrong },
      control,
    };
  },
};

/** The same, with a client that does not recognise its own earlier attempt. */
async function naive(wanted: Outcome, requests: number): Promise<Figures> {
  const bug = PLANTED_BUGS.find(({ name }) => name.includes('made again'));
  let wrong = 0;
  for (let from = 0; from < requests; from++) {
    const { seen } = await outcome({ from, count: 1, arrives: true }, bug?.plant);
    if (differences(wanted, seen).length > 0) wrong++;
  }
  return { broke: wrong > 0, 'runs that differ': wrong };
}
