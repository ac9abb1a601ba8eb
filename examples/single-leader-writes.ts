/**
 * One leader writes. Two replicas of a service are candidates; the leader keeps the list of what
 * the service has accepted, one object in an S3-like store: it reads the list, adds, and puts it
 * back. The first leader is stopped in between. The second one is elected, adds what its customers
 * were promised, and confirms. Then the first one puts its list, and the promise is gone.
 *
 * The store has conditional writes, and yet the plain put does not use them, as most programs do
 * not. The guard does, and keeps the leader's token with the object.
 */
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { ObjectGuard } from '../src/guard/object.ts';
import { ObjectServer } from '../src/testing/object-server.ts';
import { Actor, isActor, openAuthority, overtake, playAs, verdictOf } from './support/actor.ts';

const NAME = 'accepted';

export const story: Story = {
  about: 'a leader that was replaced writes once more: refused, or confirmed orders are gone',
  async run(context) {
    const authority = await openAuthority(context);
    const replicas = await Actor.cast(context, import.meta.url, authority, 'red', 'blue');
    const figures = await tell(context, replicas, true);
    const control = await tell(context, replicas, false);
    const ok = figures['confirmed orders lost'] === 0 && figures['late writes refused'] === 1;
    return { ok: ok && control['confirmed orders lost'] === 1, figures, control };
  },
};

type Replicas = Readonly<Record<'red' | 'blue', Actor>>;

async function tell(context: Context, { red, blue }: Replicas, guarded: boolean): Promise<Figures> {
  context.log(guarded ? 'With the guard at the object:' : '\nThe same with a plain put:');
  const server = await ObjectServer.start();
  context.cleanup(() => server.close());
  const details = { store: server.url, guarded, office: guarded ? 'orders' : 'control' };
  const { refused } = await overtake(context, red, blue, 'accept', details);
  const { list } = await blue.play('read', details);
  context.log(`  accepted, as the store has it: ${list}`);
  return {
    'confirmed orders lost': String(list).includes('blue') ? 0 : 1,
    'late writes refused': refused ? 1 : 0,
  };
}

/** The object, guarded or not. */
async function openList(store: string, guarded: boolean) {
  const guard = guarded ? await ObjectGuard.open({ store: { url: store } }) : undefined;
  return {
    read: async (): Promise<string> => {
      if (guard) return String((await guard.read(NAME))?.data ?? '');
      const response = await fetch(`${store}/${NAME}`);
      return response.ok ? await response.text() : '';
    },
    write: async (token: bigint, body: string): Promise<void> => {
      if (guard) await guard.write(token, NAME, body);
      else await fetch(`${store}/${NAME}`, { method: 'PUT', body });
    },
  };
}

if (isActor) {
  await playAs({
    accept: async ({ hf, name, freeze }, { store, guarded, office, freeze: stopped }) => {
      const list = await openList(String(store), Boolean(guarded));
      const leadership = await hf.election(String(office)).campaign({ value: name });
      const token = String(leadership.token);
      const before = await list.read();
      leadership.ensureHeld();
      if (stopped) freeze({ token });
      const verdict = await verdictOf(() =>
        list.write(leadership.token, `${before}[an order through ${name}]`),
      );
      await leadership.release();
      return { token, verdict };
    },
    read: async (_stage, { store, guarded }) => {
      const list = await openList(String(store), Boolean(guarded));
      return { list: await list.read() };
    },
  });
}
