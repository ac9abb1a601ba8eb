/**
 * Our HTTP/2 against the standard, case by case, and against other implementations in both roles.
 * Control: the same cases on machines that are broken on purpose, one rule each; they must catch all.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { seededRandom } from '../src/base/random.ts';
import { broken, CASES } from '../test/http2/cases.ts';
import { conversation, outcome } from '../test/http2/conversation.ts';
import { certificate, TOOLS } from '../test/http2/harness.ts';
import { type Mutant, plant } from '../test/http2/mutants.ts';
import { PEER_CHECKS } from '../test/http2/peers.ts';
import type { MakeConnection } from '../test/http2/script.ts';

const MUTANTS: readonly Mutant[] = [
  ['receiver.ts', "if (to < from) return wrong('more padding than payload');\n    }", '}'],
  ['receiver.ts', 'if (charged > stream.receiveWindow)', 'if (false)'],
  ['receiver.ts', 'if (!this.settled && type !== SETTINGS)', 'if (false)'],
  ['receiver.ts', '(type !== CONTINUATION || id !== open)', 'type !== CONTINUATION'],
  ['receiver.ts', "if (increment === 0) return wrong('a window update of nothing');", ''],
  ['receiver.ts', 'openStreams >= limits.concurrentStreams', 'false'],
  ['receiver.ts', "if ((id & 1) === 0) return wrong('a stream with an even number');", ''],
  ['receiver.ts', 'if (!last || short || block.asTrailers.problem)', 'if (short)'],
  ['stream.ts', '? this.receivedBytes === this.expectedBytes', '? true'],
  ['receiver.ts', 'if (!stream.canReceive) return this.#streamFault(stream, STREAM_CLOSED);', ''],
  ['receiver.ts', 'if (!fault) this.#sender.ping(payload, true);', ''],
  ['receiver.ts', 'for (const stream of streams) stream.receiveWindow += change;', ''],
  ['receiver.ts', 'if (this.#resetByUs.has(id))', 'if (false)'],
  ['connection.ts', 'stream.sendWindow += change;', ''],
  ['connection.ts', 'if (lastStream > this.#peerLast)', 'if (false)'],
  ['connection.ts', 'if (stream.id <= lastStream) continue;', 'continue;'],
  ['sender.ts', '(length <= this.window && length <= stream.sendWindow)', 'true'],
  ['sender.ts', 'flags | END_HEADERS, id);', 'flags, id);'],
  ['flow.ts', 'return this.#left >= 0;', 'return true;'],
  ['flow.ts', 'this.#left = this.#size;\n    return increment;', 'return 0;'],
  ['settings.ts', 'if (value > WINDOW_MAX)', 'if (false)'],
  [
    'settings.ts',
    'at += ENTRY_BYTES) {\n    const id = bytes[at]! * 256',
    'at += 7) {\n    const id = bytes[at]! * 256',
  ],
  ['headers.ts', "return name === 'upgrade';", 'return false;'],
  ['headers.ts', '/^:?[!-9;-@[-~]+$/', '/./'],
  ['headers.ts', "return malformed('host and :authority differ');", ''],
  ['headers.ts', "if (status === 101) return malformed('101 is not for HTTP/2');", ''],
  [
    'headers.ts',
    '=== 0x3a) return malformed(`a pseudo-header',
    '=== 0) return malformed(`a pseudo-header',
  ],
  ['assembler.ts', 'if (length > this.frameBytes) {\n        this.#oversize();', 'if (false) {'],
  ['assembler.ts', 'from, from + wanted), this.#payloadLength);', 'from, from + wanted), 0);'],
  ['assembler.ts', 'if (bytes[at] !== PREFACE[this.#prefaceAt])', 'if (false)'],
  ['hpack/huffman.ts', 'return MAY_END[state] ? length : -1;', 'return length;'],
  ['hpack/decode.ts', 'memory.version !== version || ', ''],
  ['hpack/decode.ts', 'if (bytes < this.#table.capacity) this.#shrinkDue = true;', ''],
  ['hpack/decode.ts', 'index <= STATIC_SIZE)', 'index < STATIC_SIZE)'],
  ['hpack/dynamic-table.ts', 'if (size > this.#capacity) return false;', ''],
];

const SPLITS = 150;

function splitsDiffer(seed: number, count: number, make?: MakeConnection): boolean {
  for (let i = 0; i < count; i++) {
    const random = seededRandom(seed + i);
    const role = random.chance(0.5) ? 'server' : 'client';
    const bytes = conversation(role, random);
    const cuts = Array.from({ length: 20 }, () => random.integer(0, bytes.length + 1));
    const whole = JSON.stringify(outcome(role, bytes, [], {}, make));
    const cut = outcome(
      role,
      bytes,
      cuts.sort((a, b) => a - b),
      {},
      make,
    );
    if (JSON.stringify(cut) !== whole) return true;
  }
  return false;
}

/** Whether the cases, or the cutting of conversations, notice. */
function caught(make: MakeConnection, seed: number): boolean {
  const noticed = CASES.some((test) => {
    try {
      return broken(test, make) !== undefined;
    } catch {
      return true;
    }
  });
  return noticed || splitsDiffer(seed, SPLITS, make);
}

function checkCases(context: Context): number {
  const sections = new Map<string, { held: number; all: number }>();
  let failed = 0;
  for (const test of CASES) {
    const row = sections.get(test.section) ?? { held: 0, all: 0 };
    sections.set(test.section, row);
    row.all++;
    const differs = broken(test);
    if (!differs) row.held++;
    else {
      failed++;
      context.log(`FAILED ${test.section} ${test.rule}: ${differs}`);
    }
  }
  context.log('cases by section (RFC 9113; HPACK is RFC 7541):');
  const order = [...sections].sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }));
  for (const [section, { held, all }] of order) {
    context.log(`  ${section.padEnd(14)} ${held} of ${all} held`);
  }
  return failed;
}

async function checkPeers(context: Context): Promise<number> {
  const made = certificate(context.scratch);
  const scale = context.long ? 20 : 1;
  let failed = 0;
  context.log('\nother implementations:');
  for (const check of PEER_CHECKS) {
    const steps: (() => unknown)[] = [];
    const undo = (step: () => unknown): void => {
      steps.push(step);
    };
    const fromMs = performance.now();
    let said = 'agreed';
    try {
      await check.run({ undo, scratch: context.scratch, certificate: made, scale });
    } catch (error) {
      failed++;
      said = `FAILED ${error instanceof Error ? error.message : String(error)}`;
    } finally {
      for (const step of steps.reverse()) await step();
    }
    const ms = (performance.now() - fromMs).toFixed(0);
    context.log(
      `  ${check.peer.padEnd(14)} we as ${check.role.padEnd(7)} ${check.what}: ${said}, ${ms} ms`,
    );
  }
  return failed;
}

async function run(context: Context): Promise<Report> {
  const failedCases = checkCases(context);
  const splits = context.long ? 20_000 : 500;
  const differ = splitsDiffer(context.seed, splits);
  const failedPeers = await checkPeers(context);
  const survivors: string[] = [];
  for (const [i, mutant] of MUTANTS.entries()) {
    const machine = await plant(context.scratch, mutant, i);
    if (!caught(machine.make, context.seed)) survivors.push(`${mutant[0]}: ${mutant[1]}`);
  }
  for (const survivor of survivors) context.log(`not caught: ${survivor}`);
  const broke = survivors.length === 0;
  return {
    ok: failedCases === 0 && failedPeers === 0 && !differ && broke,
    figures: {
      cases: CASES.length,
      'cases failed': failedCases,
      'conversations cut at random': splits,
      'of which cutting changed one': differ,
      'checks with other implementations': PEER_CHECKS.length,
      'of which failed': failedPeers,
    },
    control: {
      broke,
      'machines broken on purpose': MUTANTS.length,
      'not caught': survivors.length,
    },
  };
}

export const experiment: Experiment = {
  about: 'HTTP/2 and HPACK by section of their standards, and against other implementations',
  needs: TOOLS,
  run,
};
