/** The message codec beside protobufjs and protobuf-es: what a call's messages cost. */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { decode, encode } from '../src/wire/messages/codec.ts';
import type { MessageType } from '../src/wire/messages/descriptor.ts';
import {
  PutRequest,
  RangeResponse,
  TxnRequest,
  WatchResponse,
} from '../src/wire/messages/gen/rpc.ts';
import { protobufEs, protobufJs } from '../test/messages/references.ts';

const header = {
  clusterId: 14_841_639_068_965_178_418n,
  memberId: 10_276_657_743_932_975_437n,
  revision: 123_456,
  raftTerm: 2,
};
const pair = (i: number) => ({
  key: utf8(`locks/orders/${i}/694d7a3b2c1`),
  createRevision: 100_000 + i,
  modRevision: 100_000 + i,
  version: 1,
  value: new Uint8Array(64).fill(97),
  lease: 7_587_862_094_923_467_537n,
});

interface Case {
  readonly name: string;
  readonly type: MessageType<object>;
  readonly message: object;
}

const CASES: readonly Case[] = [
  {
    name: 'put',
    type: PutRequest,
    message: { key: utf8('bench/key/000123'), value: new Uint8Array(64).fill(120), lease: 77n },
  },
  {
    name: 'range1',
    type: RangeResponse,
    message: { header, kvs: [pair(1)], count: 1 },
  },
  {
    name: 'range50',
    type: RangeResponse,
    message: { header, kvs: Array.from({ length: 50 }, (_, i) => pair(i)), count: 50 },
  },
  {
    name: 'lock',
    type: TxnRequest,
    message: {
      compare: [{ target: 1, key: utf8('locks/orders/1/694d'), createRevision: 0 }],
      success: [
        { requestPut: { key: utf8('locks/orders/1/694d'), lease: 7_587_862_094_923_467_537n } },
        {
          requestRange: {
            key: utf8('locks/orders/1/'),
            rangeEnd: utf8('locks/orders/10'),
            limit: 1,
          },
        },
      ],
      failure: [{ requestRange: { key: utf8('locks/orders/1/694d') } }],
    },
  },
  {
    name: 'event',
    type: WatchResponse,
    message: { header, watchId: 3, events: [{ kv: pair(1) }] },
  },
];

/** Operations per second of processor time, the best of some rounds: the machine has other work. */
function rate(work: () => unknown, ms: number): number {
  let best = 0;
  for (let round = 0; round < 4; round++) {
    let count = 0;
    const start = process.cpuUsage();
    let usedMs = 0;
    while (usedMs < ms) {
      for (let i = 0; i < 2_000; i++) kept = work();
      count += 2_000;
      const used = process.cpuUsage(start);
      usedMs = (used.user + used.system) / 1_000;
    }
    best = Math.max(best, (count / usedMs) * 1_000);
  }
  return best;
}

/** Results go somewhere, or the work could be left out by the compiler. */
let kept: unknown;

async function run(context: Context): Promise<Report> {
  const ms = context.long ? 500 : 100;
  const root = protobufJs();
  const registry = protobufEs(root);
  const figures: Record<string, number> = {};
  const others: Record<string, number> = {};
  let ok = true;
  for (const { name, type, message } of CASES) {
    const bytes = encode(type, message).slice();
    const js = root.lookupType(type.name);
    const jsMessage = js.decode(bytes);
    const schema = registry.getMessage(type.name)!;
    const esMessage = fromBinary(schema, bytes);
    const rates = {
      encode: [
        rate(() => encode(type, message), ms),
        rate(() => js.encode(jsMessage).finish(), ms),
        rate(() => toBinary(schema, esMessage), ms),
      ],
      decode: [
        rate(() => decode(type, bytes), ms),
        rate(() => js.decode(bytes), ms),
        rate(() => fromBinary(schema, bytes), ms),
      ],
    };
    for (const [direction, [ours = 0, pj = 0, es = 0]] of Object.entries(rates)) {
      figures[`${name}.${direction}`] = Math.round(ours);
      others[`${name}.${direction}.protobufjs`] = Math.round(pj);
      others[`${name}.${direction}.protobuf-es`] = Math.round(es);
      ok &&= ours > es;
      context.log(
        `${`${name} (${bytes.length} bytes) ${direction}`.padEnd(28)} ours ${show(ours)}  protobufjs ${show(pj)}  protobuf-es ${show(es)}`,
      );
    }
  }
  const perCall = 1e6 / figures['put.decode']! + 1e6 / figures['range1.encode']!;
  figures['microseconds per call'] = Math.round(perCall * 100) / 100;
  context.log(
    `a request read and an answer written: ${perCall.toFixed(2)} µs of the 10 a call may take at 100,000/s`,
  );
  ok &&= perCall < 3 && kept !== undefined;
  return { ok, figures, control: { ...others, broke: true } };
}

const show = (perSecond: number): string => `${(perSecond / 1e3).toFixed(0)}k/s`.padStart(9);

export const experiment: Experiment = {
  about: 'the message codec beside protobufjs and protobuf-es',
  run,
};
