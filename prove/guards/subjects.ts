/**
 * The resources of the paused-holder experiment, as a worker sees them: a state that is read, thought
 * about, and written back; with the guard, or plainly as a control. The state counts its writes, and
 * every resource keeps the order in which writes took effect, so that a judge outside can tell.
 */
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { Redis } from 'ioredis';
import pg from 'pg';
import { FencedDirectory } from '../../src/guard/file.ts';
import { refusalOf } from '../../src/guard/http/index.ts';
import { ObjectGuard } from '../../src/guard/object.ts';
import { PostgresGuard } from '../../src/guard/postgres/index.ts';
import { RedisGuard } from '../../src/guard/redis.ts';
import { HoldfastError } from '../../src/model/errors.ts';

export const GUARDS = ['postgres', 'redis', 'file', 'http', 'object', 'stream', 'cache'] as const;
export type GuardName = (typeof GUARDS)[number];

/** One write: the how-manieth it believes to be, who wrote it, and under which token. */
export interface Entry {
  readonly n: number;
  readonly operation: string;
  readonly token: string;
}

export interface Place {
  readonly guard: GuardName;
  readonly guarded: boolean;
  /** Where the resource is: a URL, a directory, a port. */
  readonly at: string;
  /** Where purges go. */
  readonly control?: string;
}

export interface Subject {
  read(): Promise<Entry>;
  /** Rejects with `stale` when the guard refuses. */
  write(entry: Entry): Promise<void>;
  close(): Promise<unknown>;
}

export const NOTHING: Entry = { n: 0, operation: '', token: '0' };

export function openSubject(place: Place): Promise<Subject> {
  return OPENERS[place.guard](place);
}

const OPENERS: Readonly<Record<GuardName, (place: Place) => Promise<Subject>>> = {
  postgres: async ({ at, guarded }) => {
    const pool = new pg.Pool({ connectionString: at, max: 2 });
    const guard = await PostgresGuard.open(pool);
    const select = 'select n, operation, token from state';
    return {
      read: async () => {
        if (!guarded) return (await pool.query(select)).rows[0];
        const tx = await pool.connect();
        try {
          await tx.query('begin');
          await guard.admit(tx, reading.token, 'state');
          const { rows } = await tx.query(select);
          await tx.query('commit');
          return rows[0];
        } catch (error) {
          await tx.query('rollback').catch(() => {});
          throw error;
        } finally {
          tx.release();
        }
      },
      write: async ({ n, operation, token }) => {
        const tx = await pool.connect();
        try {
          await tx.query('begin');
          if (guarded) await guard.admit(tx, token, 'state');
          const row = [n, operation, token];
          await tx.query('update state set n = $1, operation = $2, token = $3', row);
          await tx.query('insert into history (n, operation, token) values ($1, $2, $3)', row);
          await tx.query('commit');
        } catch (error) {
          await tx.query('rollback').catch(() => {});
          throw error;
        } finally {
          tx.release();
        }
      },
      close: () => pool.end(),
    };
  },

  redis: async ({ at, guarded }) => {
    const client = new Redis(at);
    const guard = await RedisGuard.open(client);
    return {
      read: async () => {
        const text = guarded
          ? (
              await guard.run(reading.token, {
                resource: 's',
                keys: ['{s}:state'],
                commands: [['GET', '{s}:state']],
              })
            )[0]
          : await client.get('{s}:state');
        return text ? JSON.parse(String(text)) : NOTHING;
      },
      write: async (entry) => {
        const text = JSON.stringify(entry);
        const commands = [
          ['SET', '{s}:state', text],
          ['RPUSH', '{s}:history', text],
        ];
        const keys = ['{s}:state', '{s}:history'];
        if (guarded) await guard.run(entry.token, { resource: 's', keys, commands });
        else await client.multi().set('{s}:state', text).rpush('{s}:history', text).exec();
      },
      close: async () => client.disconnect(),
    };
  },

  file: async ({ at, guarded }) => {
    const directory = await FencedDirectory.open(at);
    return {
      read: async () => {
        if (!guarded) return JSON.parse(await readFile(`${at}/state`, 'utf8'));
        await directory.admit(reading.token);
        return JSON.parse(String(await directory.read('state', reading.token)));
      },
      write: async (entry) => {
        const data = JSON.stringify(entry);
        if (guarded) {
          await directory.commit(entry.token, [
            { type: 'write', path: 'state', data },
            { type: 'append', path: 'history', data: `${data}\n` },
          ]);
        } else {
          await writeFile(`${at}/state`, data);
          await appendFile(`${at}/history`, `${data}\n`);
        }
      },
      close: () => directory.close(),
    };
  },

  http: async ({ at }) => ({
    read: async () => {
      const response = await fetch(at, { headers: { 'holdfast-token': reading.token } });
      if (response.ok) return (await response.json()) as Entry;
      const body = await response.text();
      throw refusalOf(response.status, body) ?? new Error(body);
    },
    write: (entry) => put(at, entry),
    close: async () => {},
  }),

  object: async ({ at, guarded }) => {
    const guard = guarded ? await ObjectGuard.open({ store: { url: at } }) : undefined;
    return {
      read: async () => {
        if (guard) {
          await guard.admit(reading.token, 'state');
          return JSON.parse(String((await guard.read('state'))?.data ?? JSON.stringify(NOTHING)));
        }
        const response = await fetch(`${at}/state`);
        return response.ok ? ((await response.json()) as Entry) : NOTHING;
      },
      write: async (entry) => {
        const body = JSON.stringify(entry);
        if (guard) await guard.write(entry.token, 'state', body);
        else await fetch(`${at}/state`, { method: 'PUT', body });
      },
      close: async () => {},
    };
  },

  stream: async ({ at, guarded }) => {
    let line: Line | undefined;
    const speak = async (token: string, words: string): Promise<string> => {
      if (!line || line.token !== token || line.socket.destroyed) {
        line?.socket.destroy();
        line = await openLine(Number(at), token, guarded);
      }
      return await line.ask(words);
    };
    return {
      // Reading needs the line too, so it is read under the token that will write.
      read: async () => JSON.parse(await speak(reading.token, 'get')),
      write: async (entry) => {
        const answer = await speak(entry.token, `set ${JSON.stringify(entry)}`);
        if (answer !== `done ${entry.operation}`) throw lineError(answer);
      },
      close: async () => line?.socket.destroy(),
    };
  },

  cache: async ({ at, control, guarded }) => ({
    read: async () => {
      const headers = guarded ? { 'holdfast-token': reading.token } : {};
      const response = await fetch(`${at}/now`, { headers });
      if (response.ok) return (await response.json()) as Entry;
      const body = await response.text();
      throw refusalOf(response.status, body) ?? new Error(body);
    },
    write: async (entry) => {
      await put(`${at}/page`, entry);
      const headers = { 'holdfast-token': entry.token };
      const method = guarded ? 'POST' : 'PURGE';
      const response = await fetch(`${control}/page`, { method, headers });
      const body = await response.text();
      if (!response.ok) throw refusalOf(response.status, body) ?? new Error(body);
    },
    close: async () => {},
  }),
};

/**
 * The token under which this worker reads now. Guarded reads raise the mark first: what is read
 * before that, an older holder may still change rightfully.
 */
export const reading = { token: '0' };

async function put(url: string, entry: Entry): Promise<void> {
  const response = await fetch(url, {
    method: 'PUT',
    body: JSON.stringify(entry),
    headers: { 'holdfast-token': entry.token },
  });
  const body = await response.text();
  if (!response.ok) throw refusalOf(response.status, body) ?? new Error(body);
}

interface Line {
  readonly token: string;
  readonly socket: Socket;
  ask(words: string): Promise<string>;
}

async function openLine(port: number, token: string, guarded: boolean): Promise<Line> {
  const socket = createConnection({ port, host: '127.0.0.1' });
  const waiting: ((answer: string) => void)[] = [];
  socket.on('error', () => {});
  socket.on('close', () => {
    for (const wake of waiting.splice(0)) wake('the line was cut');
  });
  createInterface({ input: socket }).on('line', (text) => {
    if (text) waiting.shift()?.(text);
  });
  const ask = (words: string): Promise<string> =>
    new Promise((resolve) => {
      waiting.push(resolve);
      if (words) socket.write(`${words}\n`);
      if (socket.destroyed) resolve('the line was cut');
    });
  if (guarded) {
    const answer = await ask(`holdfast ${token}`);
    if (!answer.startsWith('ok ')) throw lineError(answer);
  }
  return { token, socket, ask };
}

function lineError(answer: string): Error {
  return answer.startsWith('stale:')
    ? new HoldfastError('stale', answer)
    : new HoldfastError('unavailable', answer, { outcome: 'unknown' });
}
