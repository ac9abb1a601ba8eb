/**
 * Keys of an engine as registers, for the linearizability checker: read, write, delete, and write
 * if the key has a given revision. Each key is a part of its own; answers carry revisions.
 */
import type { SequentialModel } from './linearizable.ts';

export type RegisterInput = { readonly key: string } & (
  | { readonly kind: 'read' | 'delete' }
  | { readonly kind: 'write'; readonly value: string }
  /** Writes only if the key was last changed at `expected`; 0 is a key that does not exist. */
  | { readonly kind: 'write-if'; readonly value: string; readonly expected: number }
);

export interface RegisterOutput {
  /** The header's revision. */
  readonly revision: number;
  /** With a read: what was there, and since when. */
  readonly value?: string | undefined;
  readonly modRevision?: number;
  /** With a conditional write. */
  readonly succeeded?: boolean;
}

export interface RegisterState {
  readonly value: string | undefined;
  /** 0: the key does not exist. `undefined`: changed by an operation nobody heard of. */
  readonly modRevision: number | undefined;
}

const GONE: RegisterState = { value: undefined, modRevision: 0 };

export const registerModel: SequentialModel<RegisterState, RegisterInput, RegisterOutput> = {
  initial: GONE,
  replaces: true,
  step: (state, input, output) => {
    switch (input.kind) {
      case 'read':
        return !output || reads(state, output) ? seen(state, output) : undefined;
      case 'write':
        return { value: input.value, modRevision: output?.revision };
      case 'delete':
        return GONE;
      case 'write-if':
        return writeIf(state, input, output);
    }
  },
  key: ({ value, modRevision }) => `${modRevision}/${value ?? ''}`,
  partition: ({ key }) => key,
  revision: ({ revision }) => revision,
};

function reads(state: RegisterState, output: RegisterOutput): boolean {
  if (state.value !== output.value) return false;
  if (state.modRevision !== undefined) return state.modRevision === (output.modRevision ?? 0);
  return (output.modRevision ?? 0) > 0;
}

/** A read tells when an unheard-of change was made. */
function seen(state: RegisterState, output: RegisterOutput | undefined): RegisterState {
  if (!output || state.modRevision !== undefined) return state;
  return { value: state.value, modRevision: output.modRevision };
}

function writeIf(
  state: RegisterState,
  input: Extract<RegisterInput, { kind: 'write-if' }>,
  output: RegisterOutput | undefined,
): RegisterState | undefined {
  const certain = state.modRevision !== undefined;
  const matches = state.modRevision === input.expected;
  if (!output) {
    return matches || !certain ? { value: input.value, modRevision: undefined } : state;
  }
  if (certain && matches !== output.succeeded) return undefined;
  if (!output.succeeded) return state;
  return { value: input.value, modRevision: output.revision };
}
