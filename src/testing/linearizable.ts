/**
 * Is there an order in which the operations of a history, each at one moment between its call and
 * its return, give the answers that were seen?
 *
 * The search of Wing and Gong with Lowe's memory of states already met: it takes, one after the
 * other, an operation that no outstanding return forbids, and goes back when it is stuck. Each key
 * is searched alone where operations touch one key (`partition`). An operation whose outcome is
 * unknown may happen at any moment after its call, or never.
 *
 * With `revision` the search hardly ever goes back: operations that answered with a revision can
 * only stand in the order of their revisions, so only the unknown ones are tried in several places.
 */

import { seededRandom } from '../base/random.ts';

/** One operation as its caller saw it. */
export interface Operation<Input, Output> {
  readonly input: Input;
  /** What was answered; absent when the outcome is unknown. */
  readonly output?: Output;
  readonly callMs: number;
  /** When the answer came. Counts as never when the outcome is unknown. */
  readonly returnMs: number;
}

/** What the operations mean when they come one after the other. */
export interface SequentialModel<State, Input, Output> {
  readonly initial: State;
  /** The state after the operation, or `undefined` if it cannot answer `output` in this state. */
  step(state: State, input: Input, output: Output | undefined): State | undefined;
  /** Equal states have equal keys. */
  key(state: State): string;
  /** Operations of different parts do not touch each other. */
  partition?(input: Input): string;
  /**
   * Every operation that changes anything replaces the whole state. Then an unknown one that nobody
   * saw can be left out, and the search stays short however many there are.
   */
  readonly replaces?: boolean;
  /** The place in the store's history an answer tells, if it tells one. Writes own theirs. */
  revision?(output: Output): number | undefined;
}

export type Linearization<Input, Output> =
  | { readonly linearizable: true; readonly order: readonly Operation<Input, Output>[] }
  | {
      readonly linearizable: false;
      /** The longest order found, and what could not follow it. */
      readonly order: readonly Operation<Input, Output>[];
      readonly stuck: readonly Operation<Input, Output>[];
    };

export function checkLinearizable<State, Input, Output>(
  history: readonly Operation<Input, Output>[],
  model: SequentialModel<State, Input, Output>,
): Linearization<Input, Output> {
  const order: Operation<Input, Output>[] = [];
  for (const part of partition(history, model)) {
    const result = new Search(part, model).run();
    if (!result.linearizable) return result;
    order.push(...result.order);
  }
  return { linearizable: true, order };
}

function partition<State, Input, Output>(
  history: readonly Operation<Input, Output>[],
  model: SequentialModel<State, Input, Output>,
): readonly Operation<Input, Output>[][] {
  if (!model.partition) return [[...history]];
  const parts = new Map<string, Operation<Input, Output>[]>();
  for (const operation of history) {
    const name = model.partition(operation.input);
    parts.set(name, [...(parts.get(name) ?? []), operation]);
  }
  return [...parts.values()];
}

interface Frame<State> {
  readonly state: State;
  /** Before the operation of unknown outcome that was taken last, if that was the last of all. */
  readonly without: State | undefined;
  /** Operations that may come next, and how many of them have been tried. */
  readonly candidates: readonly number[];
  tried: number;
}

class Search<State, Input, Output> {
  readonly #operations: readonly Operation<Input, Output>[];
  readonly #model: SequentialModel<State, Input, Output>;
  readonly #revisions: readonly (number | undefined)[];
  /** The operations not taken yet, by their call. */
  readonly #open: Links;
  /** Of these the ones that answered with a revision, the lowest first. */
  readonly #rising: Links;
  readonly #met = new Set<string>();
  readonly #marks: readonly (readonly [number, number])[];
  /** Names the set of operations taken: 64 bits, the exclusive or of one mark for each. */
  #taken: readonly [number, number] = [0, 0];
  /** The operations taken so far, in order. */
  readonly #order: number[] = [];
  #longest: readonly number[] = [];
  #knownLeft: number;

  constructor(
    operations: readonly Operation<Input, Output>[],
    model: SequentialModel<State, Input, Output>,
  ) {
    this.#operations = [...operations].sort((a, b) => a.callMs - b.callMs);
    this.#model = model;
    this.#revisions = this.#operations.map(({ output }) =>
      output === undefined ? undefined : model.revision?.(output),
    );
    const all = [...this.#operations.keys()];
    this.#open = new Links(all);
    this.#rising = new Links(
      all
        .filter((i) => this.#revisions[i] !== undefined)
        .sort((a, b) => this.#revisions[a]! - this.#revisions[b]!),
    );
    const random = seededRandom(operations.length);
    const word = (): number => random.integer(0, 2 ** 32);
    this.#marks = all.map(() => [word(), word()]);
    this.#knownLeft = this.#operations.filter(isKnown).length;
  }

  run(): Linearization<Input, Output> {
    const frames = [this.#frame(this.#model.initial, undefined)];
    while (this.#knownLeft > 0) {
      const frame = frames.at(-1);
      if (!frame) return this.#failure();
      const index = frame.candidates[frame.tried++];
      if (index === undefined) {
        frames.pop();
        if (frames.length > 0) this.#untake();
        continue;
      }
      const state = this.#step(frame, index);
      if (state === undefined) continue;
      this.#take(index);
      const without = isKnown(this.#operations[index]!) ? undefined : frame.state;
      if (this.#isNew(state, without)) frames.push(this.#frame(state, without));
      else this.#untake();
    }
    return { linearizable: true, order: this.#order.map((index) => this.#operations[index]!) };
  }

  #frame(state: State, without: State | undefined): Frame<State> {
    return { state, without, candidates: this.#candidates(), tried: 0 };
  }

  /** An unknown operation is worth taking only for what cannot come without it. */
  #step({ state, without }: Frame<State>, index: number): State | undefined {
    const { input, output } = this.#operations[index]!;
    if (this.#model.replaces && without !== undefined) {
      if (output === undefined) return undefined;
      if (this.#model.step(without, input, output) !== undefined) return undefined;
    }
    return this.#model.step(state, input, output);
  }

  /** Called before any outstanding operation returned, and not ahead of a lower revision. */
  #candidates(): readonly number[] {
    const next = this.#rising.first;
    const lowest = (next === undefined ? undefined : this.#revisions[next]) ?? Infinity;
    const open: number[] = [];
    let firstReturn = Infinity;
    // In order of call: once one was called after an outstanding return, so were all that follow.
    for (const index of this.#open) {
      const operation = this.#operations[index]!;
      if (operation.callMs > firstReturn) break;
      if (isKnown(operation)) firstReturn = Math.min(firstReturn, operation.returnMs);
      if ((this.#revisions[index] ?? lowest) <= lowest) open.push(index);
    }
    const due = open.filter((i) => this.#operations[i]!.callMs <= firstReturn);
    const known = due.filter((i) => isKnown(this.#operations[i]!));
    return [...known, ...due.filter((i) => !isKnown(this.#operations[i]!))];
  }

  #take(index: number): void {
    this.#open.remove(index);
    this.#rising.remove(index);
    this.#mark(index);
    this.#order.push(index);
    if (isKnown(this.#operations[index]!)) this.#knownLeft--;
  }

  #untake(): void {
    // Noted on the way back only, so that a straight way costs nothing.
    if (this.#order.length > this.#longest.length) this.#longest = [...this.#order];
    const index = this.#order.pop()!;
    this.#rising.restore(index);
    this.#open.restore(index);
    this.#mark(index);
    if (isKnown(this.#operations[index]!)) this.#knownLeft++;
  }

  #mark(index: number): void {
    const [a, b] = this.#marks[index]!;
    this.#taken = [this.#taken[0] ^ a, this.#taken[1] ^ b];
  }

  #isNew(state: State, without: State | undefined): boolean {
    const { key, replaces } = this.#model;
    const before = replaces && without !== undefined ? key(without) : '';
    const name = `${this.#taken.join()}/${key(state)}/${before}`;
    if (this.#met.has(name)) return false;
    this.#met.add(name);
    return true;
  }

  #failure(): Linearization<Input, Output> {
    const taken = new Set(this.#longest);
    const order = this.#longest.map((index) => this.#operations[index]!);
    const stuck = this.#operations.filter((one, i) => isKnown(one) && !taken.has(i));
    return { linearizable: false, order, stuck };
  }
}

/** A list from which members are taken and put back in reverse order, each in a moment. */
class Links {
  readonly #next = new Map<number, number>();
  readonly #previous = new Map<number, number>();

  /** -1 stands for both ends. */
  constructor(members: readonly number[]) {
    let last = -1;
    for (const member of [...members, -1]) {
      this.#next.set(last, member);
      this.#previous.set(member, last);
      last = member;
    }
  }

  get first(): number | undefined {
    const first = this.#next.get(-1)!;
    return first < 0 ? undefined : first;
  }

  remove(member: number): void {
    const next = this.#next.get(member);
    const previous = this.#previous.get(member);
    if (next === undefined || previous === undefined) return;
    this.#next.set(previous, next);
    this.#previous.set(next, previous);
  }

  /** Undoes the last `remove`. */
  restore(member: number): void {
    const next = this.#next.get(member);
    const previous = this.#previous.get(member);
    if (next === undefined || previous === undefined) return;
    this.#next.set(previous, member);
    this.#previous.set(next, member);
  }

  *[Symbol.iterator](): Generator<number> {
    for (let at = this.#next.get(-1)!; at >= 0; at = this.#next.get(at)!) yield at;
  }
}

function isKnown(operation: Operation<unknown, unknown>): boolean {
  return operation.output !== undefined;
}
