/**
 * gRPC with its messages beside @grpc/grpc-js and protobufjs, in one run: a `Put` that is decoded and
 * answered but stored nowhere, under h2load; and our client beside grpc-js' on the same server.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { programArguments } from '../scripts/program.ts';
import { encodeFramed } from '../src/wire/messages/codec.ts';
import { KVService } from '../src/wire/messages/services.ts';
import { run as runProgram, start } from '../test/http2/harness.ts';

const SERVERS = ['ours', 'grpc-js'] as const;
const LOADS = [
  [1, 1],
  [1, 64],
  [10, 32],
] as const;
const CLIENT_MUST = 3;
const program = (name: string): string[] =>
  programArguments(join(import.meta.dirname, 'grpc'), name);

interface Load {
  readonly port: number;
  readonly body: string;
  readonly connections: number;
  readonly streams: number;
  readonly seconds: number;
}

async function h2load({ port, body, connections, streams, seconds }: Load): Promise<number> {
  const said = await runProgram('h2load', [
    ...['-c', `${connections}`, '-m', `${streams}`, '-D', `${seconds}`, '--warm-up-time', '1'],
    ...['-d', body, '-H', 'content-type: application/grpc', '-H', 'te: trailers'],
    `http://127.0.0.1:${port}${KVService.Put.path}`,
  ]);
  const rate = /finished in .*, ([0-9.]+) req\/s/.exec(said)?.[1];
  const failed = /([0-9]+) failed, ([0-9]+) errored/.exec(said);
  if (!rate || failed?.[1] !== '0' || failed?.[2] !== '0') throw new Error(said);
  return Number(rate);
}

async function clientRate(which: string, port: number, atOnce: number, ms: number) {
  const args = [...program('client'), which, `${port}`, `${atOnce}`, `${ms}`];
  return Number(await runProgram(process.execPath, args));
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1]!;

async function run(context: Context): Promise<Report> {
  const quick = context.options.quick === true;
  const seconds = quick ? 1 : 4;
  const rounds = quick ? 1 : 3;
  const body = join(context.scratch, 'body');
  const key = new TextEncoder().encode('bench/key/000123');
  writeFileSync(body, encodeFramed(KVService.Put.request, { key, value: new Uint8Array(64) }));
  const ports: Record<string, number> = {};
  for (const kind of SERVERS) {
    const args = [...program('server'), kind];
    ports[kind] = Number((await start(context.cleanup, process.execPath, args)).first);
  }

  const figures: Record<string, number> = {};
  const control: Record<string, number | boolean> = { broke: true };
  let ok = true;
  for (const [connections, streams] of LOADS) {
    const load = `${connections}×${streams}`;
    const rates: Record<string, number[]> = { ours: [], 'grpc-js': [] };
    // Round by round, so that a change of the machine's mood meets both alike.
    for (let round = 0; round < rounds; round++) {
      for (const kind of SERVERS) {
        rates[kind]!.push(
          await h2load({ port: ports[kind]!, body, connections, streams, seconds }),
        );
      }
    }
    const ours = median(rates.ours!);
    const theirs = median(rates['grpc-js']!);
    figures[`server ${load}: puts/s`] = Math.round(ours);
    control[`grpc-js ${load}: puts/s`] = Math.round(theirs);
    figures[`server ${load}: ÷ grpc-js`] = Number((ours / theirs).toFixed(2));
    ok &&= ours > theirs;
  }
  for (const atOnce of [1, 64]) {
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      ours.push(await clientRate('ours', ports.ours!, atOnce, seconds * 1_000));
      theirs.push(await clientRate('grpc-js', ports.ours!, atOnce, seconds * 1_000));
    }
    const ratio = median(ours) / median(theirs);
    figures[`client, ${atOnce} at once: puts/s`] = Math.round(median(ours));
    control[`grpc-js client, ${atOnce} at once: puts/s`] = Math.round(median(theirs));
    figures[`client, ${atOnce} at once: ÷ grpc-js`] = Number(ratio.toFixed(2));
    if (atOnce === 64) ok &&= ratio >= CLIENT_MUST;
  }
  return { ok, figures, control };
}

export const experiment: Experiment = {
  about:
    'gRPC with its messages beside grpc-js and protobufjs: server under h2load, and client (--quick)',
  needs: { h2load: 'nghttp2-client' },
  run,
};
