/**
 * One write under a token through each guard whose marks are on this machine, with the places where
 * a crash may fall. `data` in the directory holds the token of the newest effect. Run as a program,
 * it makes the write and kills itself at the named step.
 */

import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, createConnection } from 'node:net';
import { Duplex } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { CacheAgent } from '../../src/guard/cache/index.ts';
import { FencedDirectory } from '../../src/guard/file.ts';
import { guardListener, HttpGuard, LmdbMarks, refusalOf } from '../../src/guard/http/index.ts';
import { StreamGuard } from '../../src/guard/stream.ts';
import { HoldfastError } from '../../src/model/errors.ts';

export type Step = (name: string) => void;

export interface LocalGuard {
  readonly steps: readonly string[];
  write(directory: string, token: bigint, step: Step): Promise<void>;
  mark(directory: string): Promise<bigint>;
}

/** The order that suggests itself, and is wrong: look, act, then note the mark. */
export const naive: LocalGuard = {
  steps: ['compared', 'effect', 'marked'],
  write: async (directory, token, step) => {
    const marks = LmdbMarks.open(`${directory}/marks`);
    try {
      const { token: mark } = await marks.mark('r');
      if (token < mark) throw new HoldfastError('stale', `stale: token ${token} < mark ${mark}`);
      step('compared');
      effect(directory, token);
      step('effect');
      const claim = { resource: 'r', token, holder: undefined, fresh: false };
      await marks.raise(claim, 'reign', 0);
      step('marked');
    } finally {
      await marks.close();
    }
  },
  mark: storedMark,
};

export const LOCAL: Readonly<Record<string, LocalGuard>> = {
  file: {
    steps: ['staged', 'marked', 'applying', 'applied', 'cleared'],
    write: async (directory, token, step) => {
      const onStep = (name: string): void => step(name);
      const fenced = await FencedDirectory.open(directory, { onStep });
      try {
        await fenced.write(token, 'data', String(token));
      } finally {
        await fenced.close();
      }
    },
    mark: async (directory) => {
      const fenced = await FencedDirectory.open(directory);
      const mark = await fenced.mark();
      await fenced.close();
      return mark;
    },
  },

  http: {
    steps: ['marked', 'effect', 'answered'],
    write: async (directory, token, step) => {
      const marks = LmdbMarks.open(`${directory}/marks`);
      const guard = new HttpGuard(marks, { resource: 'r', onAdmit: () => step('marked') });
      const handler = guardListener(guard, (_request, response) => {
        effect(directory, token);
        step('effect');
        response.end();
      });
      const server = createServer(handler as RequestListener).listen(0, '127.0.0.1');
      await once(server, 'listening');
      try {
        const { port } = server.address() as AddressInfo;
        const headers = { 'holdfast-token': String(token) };
        const response = await fetch(`http://127.0.0.1:${port}`, { method: 'POST', headers });
        const refusal = refusalOf(response.status, await response.text());
        if (refusal) throw refusal;
        step('answered');
      } finally {
        server.closeAllConnections();
        server.close();
        await marks.close();
      }
    },
    mark: storedMark,
  },

  stream: {
    steps: ['marked', 'effect', 'answered'],
    write: async (directory, token, step) => {
      const marks = LmdbMarks.open(`${directory}/marks`);
      const device = new Duplex({
        read: () => {},
        write: (_chunk, _encoding, taken) => {
          effect(directory, token);
          step('effect');
          taken();
          device.push('done\n');
        },
      });
      const onAdmit = (): void => step('marked');
      const guard = new StreamGuard(device, marks, { resource: 'r', delimiter: 10, onAdmit });
      guard.server.listen(0, '127.0.0.1');
      await once(guard.server, 'listening');
      try {
        const { port } = guard.server.address() as AddressInfo;
        const socket = createConnection(port, '127.0.0.1');
        socket.write(`holdfast ${token}\nwrite\n`);
        let heard = '';
        for await (const chunk of socket) {
          heard += chunk;
          if (heard.includes('done')) break;
        }
        if (heard.startsWith('stale')) throw new HoldfastError('stale', heard);
        step('answered');
      } finally {
        await guard.close();
        await marks.close();
      }
    },
    mark: storedMark,
  },

  cache: {
    steps: ['marked', 'effect', 'answered'],
    write: async (directory, token, step) => {
      const marks = LmdbMarks.open(`${directory}/marks`);
      const cache = createServer((_request, response) => {
        response.setHeader('holdfast-token', readFileSync(`${directory}/data`, 'utf8')).end();
      }).listen(0, '127.0.0.1');
      await once(cache, 'listening');
      const url = `http://127.0.0.1:${(cache.address() as AddressInfo).port}`;
      const purge = async (): Promise<void> => {
        step('marked');
        effect(directory, token);
        step('effect');
      };
      const agent = new CacheAgent(marks, { origin: url, caches: [{ url, purge }] });
      try {
        await agent.purge(token, '/r');
        step('answered');
      } finally {
        agent.close();
        cache.closeAllConnections();
        cache.close();
        await marks.close();
      }
    },
    mark: (directory) => storedMark(directory, '/r'),
  },
};

function effect(directory: string, token: bigint): void {
  writeFileSync(`${directory}/data`, String(token));
}

async function storedMark(directory: string, resource = 'r'): Promise<bigint> {
  const marks = LmdbMarks.open(`${directory}/marks`);
  const { token } = await marks.mark(resource);
  await marks.close();
  return token;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [, , guard = '', directory = '', token = '', at = ''] = process.argv;
  const chosen = guard === 'naive' ? naive : LOCAL[guard]!;
  await chosen.write(directory, BigInt(token), (name) => {
    if (name === at) process.kill(process.pid, 'SIGKILL');
  });
  // It should not have come so far.
  process.exit(3);
}
