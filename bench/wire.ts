/**
 * The transport beside others, in one run: an echo of a small gRPC-shaped call under h2load (each
 * server in a process of its own), and our client beside grpc-js' on the same server.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { programArguments } from '../scripts/program.ts';
import { run as runProgram, start } from '../test/http2/harness.ts';

const SERVERS = ['ours', 'node', 'grpc-js'] as const;
const LOADS = [
  [1, 1],
  [1, 64],
  [10, 32],
] as const;
/** ours ÷ node:http2 must be at least this. */
const MUST: Readonly<Record<string, number>> = { '1×64': 4, '10×32': 6 };
/** ours ÷ grpc-js, as a client with 64 calls at once. */
const CLIENT_MUST = 3;

const program = (name: string): string[] =>
  programArguments(join(import.meta.dirname, 'wire'), name);

async function startServer(context: Context, kind: string): Promise<number> {
  const started = await start(context.cleanup, process.execPath, [...program('server'), kind]);
  return Number(started.first);
}

async function h2load(
  port: number,
  body: string,
  connections: number,
  streams: number,
  seconds: number,
): Promise<number> {
  const said = await runProgram('h2load', [
    ...['-c', `${connections}`, '-m', `${streams}`, '-D', `${seconds}`, '--warm-up-time', '1'],
    ...['-d', body, '-H', 'content-type: application/grpc', '-H', 'te: trailers'],
    `http://127.0.0.1:${port}/echo.Echo/Unary`,
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
  writeFileSync(body, Uint8Array.of(0, 0, 0, 0, 15, ...new Uint8Array(15).fill(7)));
  const ports: Record<string, number> = {};
  for (const kind of SERVERS) ports[kind] = await startServer(context, kind);

  const figures: Record<string, number> = {};
  const control: Record<string, number | boolean> = { broke: true };
  let ok = true;
  for (const [connections, streams] of LOADS) {
    const load = `${connections}×${streams}`;
    const rates: Record<string, number[]> = { ours: [], node: [], 'grpc-js': [] };
    // Round by round, so that a change of the machine's mood meets all alike.
    for (let round = 0; round < rounds; round++) {
      for (const kind of SERVERS) {
        rates[kind]!.push(await h2load(ports[kind]!, body, connections, streams, seconds));
      }
    }
    const [ours, node, grpcJs] = SERVERS.map((kind) => median(rates[kind]!)) as [
      number,
      number,
      number,
    ];
    figures[`server ${load}: calls/s`] = Math.round(ours);
    control[`node:http2 ${load}: calls/s`] = Math.round(node);
    control[`grpc-js ${load}: calls/s`] = Math.round(grpcJs);
    figures[`server ${load}: ÷ node:http2`] = Number((ours / node).toFixed(2));
    figures[`server ${load}: ÷ grpc-js`] = Number((ours / grpcJs).toFixed(2));
    ok &&= ours / node >= (MUST[load] ?? 0);
  }
  for (const atOnce of [1, 64]) {
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      ours.push(await clientRate('ours', ports.ours!, atOnce, seconds * 1_000));
      theirs.push(await clientRate('grpc-js', ports.ours!, atOnce, seconds * 1_000));
    }
    const ratio = median(ours) / median(theirs);
    figures[`client, ${atOnce} at once: calls/s`] = Math.round(median(ours));
    control[`grpc-js client, ${atOnce} at once: calls/s`] = Math.round(median(theirs));
    figures[`client, ${atOnce} at once: ÷ grpc-js`] = Number(ratio.toFixed(2));
    if (atOnce === 64) ok &&= ratio >= CLIENT_MUST;
  }
  return { ok, figures, control };
}

export const experiment: Experiment = {
  about:
    'our HTTP/2 beside node:http2 and grpc-js under h2load, and our client beside grpc-js (--quick)',
  needs: { h2load: 'nghttp2-client' },
  run,
};
