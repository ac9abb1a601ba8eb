/**
 * One printer and one charging pad, shared by lock. The network splits: Anna's machine still
 * reaches both devices, but not the authority. Nobody is stopped here, everybody is alive.
 *
 * Anna's spooler has been given a job of three pages, and her robot's charger repeats "3000 watts".
 * Neither knows of locks. Her leases run out on the other side of the split, and Ben prints, and
 * lays his phone on the pad. Anna's own program has seen that its grants are gone; her spooler and
 * her charger go on. What is laid on the pad now gets what the pad was told last.
 */
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { connect, type Grant, openEngine } from '../src/index.ts';
import { serve } from '../src/server/serve.ts';
import { TTL_MS, verdictOf } from './support/actor.ts';
import { cuttableWay } from './support/cuttable.ts';
import { guardDevice, Line, startDevice } from './support/device.ts';

const ROBOT_WATTS = 3_000;
const PHONE_WATTS = 15;

export const story: Story = {
  about:
    'a printer and a charging pad under a split network: jobs mingled and a burnt phone, or not',
  async run(context) {
    const engine = await openEngine('memory:');
    context.cleanup(() => engine.close());
    const server = await serve({ engine, listen: { port: 0 } });
    context.cleanup(() => server.close());
    const figures = await tell(context, server.port, true);
    const control = await tell(context, server.port, false);
    const held =
      figures["pages in Ben's job that are not his"] === 0 &&
      figures['watts into the phone'] === PHONE_WATTS;
    const broke =
      Number(control["pages in Ben's job that are not his"]) > 0 &&
      control['watts into the phone'] === ROBOT_WATTS;
    return { ok: held && broke && figures['late commands refused'] === 2, figures, control };
  },
};

async function tell(context: Context, authority: number, guarded: boolean): Promise<Figures> {
  context.log(guarded ? 'With a guard before each device:' : '\nThe same without:');
  const [printer, pad] = [await startDevice(context), await startDevice(context)];
  const ports = {
    printer: guarded ? await guardDevice(context, printer, 'printer') : printer.port,
    pad: guarded ? await guardDevice(context, pad, 'pad') : pad.port,
  };
  const take = async (device: keyof typeof ports, grant: Grant, holder: string): Promise<Line> => {
    const line = new Line(ports[device]);
    context.cleanup(() => line.close());
    if (guarded) await line.greet(grant.token, holder);
    return line;
  };

  const way = await cuttableWay(context, authority);
  const anna = await connect(`etcd://127.0.0.1:${way.port}`, { ttl: TTL_MS, holder: 'anna' });
  const ben = await connect(`etcd://127.0.0.1:${authority}`, { ttl: TTL_MS, holder: 'ben' });
  try {
    const hers = [await anna.lock('printer').acquire(), await anna.lock('pad').acquire()] as const;
    const spooler = await take('printer', hers[0], 'anna');
    const charger = await take('pad', hers[1], 'anna');
    await spooler.say('page anna 1');
    await charger.say(`power ${ROBOT_WATTS}`);
    way.cut();
    context.log(`  anna has tokens ${hers[0].token} and ${hers[1].token}; the network splits`);

    const his = [await ben.lock('printer').acquire(), await ben.lock('pad').acquire()] as const;
    context.log(`  her leases run out; ben has tokens ${his[0].token} and ${his[1].token}`);
    const paper = await take('printer', his[0], 'ben');
    await paper.say('page ben 1');
    await (await take('pad', his[1], 'ben')).say(`power ${PHONE_WATTS}`);

    context.log(
      `  anna's program ${hers[0].held ? 'does not know' : 'knows'} that she lost the lock`,
    );
    const late = [
      await verdictOf(() => spooler.say('page anna 2')),
      await verdictOf(() => charger.say(`power ${ROBOT_WATTS}`)),
    ];
    context.log(`  her spooler prints the next page: ${late[0]}`);
    context.log(`  her charger asks for ${ROBOT_WATTS} watts: ${late[1]}`);
    await paper.say('page ben 2');
    await paper.say('page ben 3');
    context.log(`  the printer: ${printer.lines.join(', ')}; the pad: ${pad.lines.join(', ')}`);
    return {
      "pages in Ben's job that are not his": foreignPages(printer.lines),
      'watts into the phone': Number(pad.lines.at(-1)?.split(' ')[1]),
      'late commands refused': late.filter((verdict) => verdict !== 'done').length,
    };
  } finally {
    way.heal();
    await anna.close();
    await ben.close();
  }
}

/** Pages of others between the first and the last page of Ben's job. */
function foreignPages(lines: readonly string[]): number {
  const job = lines.slice(lines.indexOf('page ben 1'), lines.indexOf('page ben 3'));
  return job.filter((line) => !line.startsWith('page ben')).length;
}
