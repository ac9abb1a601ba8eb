/**
 * Each ticket lets one person in. People arrive at two gates, and for each ticket there is a copy
 * at the other gate. The network loses confirmations: a gate asks "may this one in?", the answer is
 * yes and never arrives, and the gate asks again.
 *
 * Without tokens the office cannot tell a gate that asks again from a second gate. A gate that hears
 * "used already" after silence either believes it, and turns away people who paid, or thinks "that
 * was me", and lets the copy in too. With the token of its grant each gate asks *the same* question
 * again: the office answers it as it did the first time, and the other gate's as the other's.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { type Random, seededRandom } from '../src/base/random.ts';
import { JobSink, LmdbJobs } from '../src/guard/job.ts';
import { type Client, connect, HoldfastError } from '../src/index.ts';
import { openAuthority } from './support/actor.ts';

const TICKETS = 24;
/** Of the answers of the office. */
const LOST = 0.4;
const GATES = ['north', 'south'] as const;

export const story: Story = {
  about: 'gates whose confirmations get lost: each ticket lets one person in, or two, or none',
  async run(context) {
    context.log(
      `${TICKETS} tickets, each at two gates at once; ${LOST * 100} % of answers are lost`,
    );
    const figures = await evening(context, guardedOffice(context), 'by token');
    const strict = await evening(context, plainOffice(), 'believes it');
    const trusting = await evening(context, plainOffice(), 'thinks it was me');
    const control: Figures = {
      'persons let in': `${strict.in} or ${trusting.in}`,
      'tickets that let two in': trusting.twice,
      'tickets that let nobody in': strict.nobody,
    };
    context.log('without tokens, the gate believes "used already" or thinks that was itself');
    const held = figures.twice === 0 && figures.nobody === 0;
    return {
      ok: held && strict.nobody > 0 && trusting.twice > 0,
      figures: {
        'persons let in': String(figures.in),
        'tickets that let two in': figures.twice,
        'tickets that let nobody in': figures.nobody,
      },
      control,
    };
  },
};

/** What the gate does with "used already" after an answer of its own was lost. */
type Manner = 'by token' | 'believes it' | 'thinks it was me';
type Answer = 'in' | 'used';
/** Decides about one request: the path names the ticket. */
type Office = (ticket: string, token: string) => Promise<Answer>;

/** The record of a ticket takes tokens: the one that finished it may ask as often as it likes. */
function guardedOffice({ scratch, cleanup }: Context): Office {
  const records = LmdbJobs.open(join(scratch, 'tickets'));
  cleanup(() => records.close());
  const sink = new JobSink(records);
  return async (ticket, token) => {
    const start = await sink.start(token, ticket).catch(usedWhenStale);
    if (start?.state === 'run') await sink.finish(token, ticket, token);
    const record = await sink.state(ticket);
    return record?.done && record.result === token ? 'in' : 'used';
  };
}

function usedWhenStale(error: unknown): undefined {
  if (!HoldfastError.is(error, 'stale')) throw error;
}

/** A set of used tickets. It is atomic too, and durable for this evening. */
function plainOffice(): Office {
  const used = new Set<string>();
  return async (ticket) => {
    if (used.has(ticket)) return 'used';
    used.add(ticket);
    return 'in';
  };
}

async function evening(context: Context, office: Office, manner: Manner) {
  const random = seededRandom(context.seed);
  const url = await open(context, office, random);
  const authority = manner === 'by token' ? await openAuthority(context) : undefined;
  const letIn = new Map<string, number>();
  await Promise.all(
    GATES.map(async (name) => {
      const hf = authority ? await connect(authority, { holder: name }) : undefined;
      for (let i = 0; i < TICKETS; i++) {
        const ticket = `ticket-${i}`;
        const opened = await scan(url, ticket, manner, hf);
        if (opened) letIn.set(ticket, (letIn.get(ticket) ?? 0) + 1);
      }
      await hf?.close();
    }),
  );
  const persons = [...letIn.values()];
  return {
    in: persons.reduce((sum, count) => sum + count, 0),
    twice: persons.filter((count) => count > 1).length,
    nobody: TICKETS - persons.length,
  };
}

/** A gate and a ticket: does the gate open? */
async function scan(url: string, ticket: string, manner: Manner, hf: Client | undefined) {
  const grant = await hf?.lock(ticket).acquire();
  try {
    for (let attempt = 1; ; attempt++) {
      const answer = await ask(url, ticket, String(grant?.token));
      if (answer === undefined) continue;
      if (answer === 'in') return true;
      return manner === 'thinks it was me' && attempt > 1;
    }
  } finally {
    await grant?.release();
  }
}

/** Undefined: the confirmation was lost. Whether the office has noted it, nobody here can say. */
async function ask(url: string, ticket: string, token: string): Promise<Answer | undefined> {
  const headers = { 'holdfast-token': token, connection: 'close' };
  const response = await fetch(`${url}/${ticket}`, { method: 'POST', headers }).catch(() => {});
  return (await response?.text()) as Answer | undefined;
}

/** The office behind a network that loses answers, never questions. */
async function open({ cleanup }: Context, office: Office, random: Random): Promise<string> {
  const server = createServer(async (request: IncomingMessage, response) => {
    const token = String(request.headers['holdfast-token']);
    const answer = await office(request.url!.slice(1), token);
    if (random.next() < LOST) response.destroy();
    else response.end(answer);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanup(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
