/** What may happen to a call on its way, as data, and the rules that decide it. */
import type { Random } from '../base/random.ts';
import type { ErrorCode, Outcome } from '../model/errors.ts';
import { HoldfastError } from '../model/errors.ts';
import type { LeaseGrantRequest } from '../model/lease.ts';
import type { LeaseId, RangeRequest, Revision, TxnRequest } from '../model/transaction.ts';
import type { WatchRequest } from '../model/watch.ts';

/** Every verb of the engine contract with what it is called with. */
export interface Requests {
  readonly range: RangeRequest;
  readonly txn: TxnRequest;
  readonly watch: WatchRequest;
  readonly grantLease: LeaseGrantRequest;
  readonly keepAlive: LeaseId;
  readonly revokeLease: LeaseId;
  readonly leaseInfo: LeaseId;
  readonly compact: Revision;
  readonly liftEra: number;
  readonly status: undefined;
}

export type Verb = keyof Requests;

export type Call = {
  readonly [V in Verb]: {
    readonly verb: V;
    readonly request: Requests[V];
    /** Counts all calls of the engine, from 1. */
    readonly number: number;
    /** Counts the calls of this verb, from 1. */
    readonly nth: number;
  };
}[Verb];

export type Verdict =
  | { readonly kind: 'pass' }
  /** The request waits before it is sent; events of a watch each come this much later. */
  | { readonly kind: 'delay'; readonly ms: number; readonly next: Verdict }
  /** The answer waits on its way back. */
  | { readonly kind: 'delay-answer'; readonly ms: number }
  /** The request never arrives. The caller cannot know. */
  | { readonly kind: 'drop-request'; readonly noticedAfterMs: number }
  /** The request is carried out and the answer lost. The caller cannot know. */
  | { readonly kind: 'drop-answer'; readonly noticedAfterMs: number }
  /** The request arrives twice; the caller sees the answer to one of them. */
  | { readonly kind: 'duplicate'; readonly answer: 'first' | 'second' }
  | { readonly kind: 'fail'; readonly error: HoldfastError };

/** Decides about a call; no answer is the same as `pass`. */
export type Rule = (call: Call, random: Random) => Verdict | undefined;

export const pass: Verdict = { kind: 'pass' };

export function delay(ms: number, next: Verdict = pass): Verdict {
  return { kind: 'delay', ms, next };
}

export function delayAnswer(ms: number): Verdict {
  return { kind: 'delay-answer', ms };
}

export function dropRequest(noticedAfterMs = 0): Verdict {
  return { kind: 'drop-request', noticedAfterMs };
}

export function dropAnswer(noticedAfterMs = 0): Verdict {
  return { kind: 'drop-answer', noticedAfterMs };
}

/** By default the answer is the second one, as when a transport sends again after a break. */
export function duplicate(answer: 'first' | 'second' = 'second'): Verdict {
  return { kind: 'duplicate', answer };
}

export function failWith(code: ErrorCode, outcome: Outcome = 'rejected'): Verdict {
  return { kind: 'fail', error: new HoldfastError(code, `injected: ${code}`, { outcome }) };
}

/** A rule for one verb: every call of it, or only the nth. */
export function onVerb(verb: Verb, verdict: Verdict, nth?: number): Rule {
  return (call) =>
    call.verb === verb && (nth === undefined || call.nth === nth) ? verdict : undefined;
}

/** A rule for the call with this number, whatever its verb: for going through a whole sequence. */
export function onCall(number: number, verdict: Verdict): Rule {
  return (call) => (call.number === number ? verdict : undefined);
}

/** A rule that strikes by chance. */
export function sometimes(probability: number, verdict: Verdict): Rule {
  return (_call, random) => (random.chance(probability) ? verdict : undefined);
}
