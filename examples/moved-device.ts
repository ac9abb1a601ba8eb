/**
 * A virtual machine is moved to another host while its old host is frozen. The disk stays where it
 * is, on the network; each host writes to it through a connection of its own, sector by sector: a
 * journal entry first, then what it announced. The old host is frozen between the two. The new one
 * takes over, does its own work, and then the old one thaws: its connection is open, and its
 * program has the rest of the work in hand.
 *
 * The disk is a plain byte device and cannot compare anything. The stream guard owns the only line
 * to it, and lets the newest token speak.
 */
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { Actor, isActor, openAuthority, overtake, playAs, verdictOf } from './support/actor.ts';
import { guardDevice, Line, startDevice } from './support/device.ts';

export const story: Story = {
  about: 'a device moved to another host while the old one is frozen: one journal, or two mingled',
  async run(context) {
    const authority = await openAuthority(context);
    const hosts = await Actor.cast(context, import.meta.url, authority, 'old-host', 'new-host');
    const figures = await tell(context, hosts, true);
    const control = await tell(context, hosts, false);
    const ok = figures['sectors that break the journal'] === 0;
    const broke = Number(control['sectors that break the journal']) > 0;
    return { ok: ok && broke && figures['late writes refused'] === 1, figures, control };
  },
};

type Hosts = Readonly<Record<'old-host' | 'new-host', Actor>>;

async function tell(context: Context, hosts: Hosts, guarded: boolean): Promise<Figures> {
  context.log(guarded ? 'Through the guard:' : '\nStraight to the disk:');
  const disk = await startDevice(context);
  const port = guarded ? await guardDevice(context, disk, 'disk') : disk.port;
  const { 'old-host': old, 'new-host': next } = hosts;
  const details = { port, guarded, lock: guarded ? 'disk' : 'disk of the control' };
  const { refused } = await overtake(context, old, next, 'work', details);
  for (const line of disk.lines) context.log(`    on the disk: ${line}`);
  return {
    'sectors that break the journal': broken(disk.lines),
    'late writes refused': refused ? 1 : 0,
  };
}

/**
 * After a journal entry only the host that made it may write, until the next entry. An entry whose
 * sectors never came is no harm: that is what a journal is for.
 */
function broken(written: readonly string[]): number {
  let owner = '';
  let count = 0;
  for (const line of written) {
    const [word, host = ''] = line.split(' ');
    if (word === 'journal') owner = host;
    else if (host !== owner) count++;
  }
  return count;
}

if (isActor) {
  await playAs({
    work: async ({ hf, name, freeze }, { port, guarded, lock, freeze: stopped }) => {
      const grant = await hf.lock(String(lock)).acquire();
      const token = String(grant.token);
      const line = new Line(Number(port));
      const verdict = await verdictOf(async () => {
        if (guarded) await line.greet(token, name);
        await line.say(`journal ${name}: sectors 1 and 2 follow`);
        if (stopped) freeze({ token });
        await line.say(`sector ${name}: 1`);
        await line.say(`sector ${name}: 2`);
      });
      line.close();
      await grant.release();
      return { token, verdict };
    },
  });
}
