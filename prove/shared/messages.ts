/** What a process of `shared` and its judge tell each other. Times are the machine's, in ms. */

export type ToWorker =
  | { readonly type: 'values'; readonly guarded: number; readonly open: number }
  | { readonly type: 'written' }
  | { readonly type: 'stop' };

export type FromWorker =
  | { readonly type: 'running' }
  | { readonly type: 'read'; readonly token: string; readonly askedAtMs: number }
  | {
      readonly type: 'write';
      readonly token: string;
      readonly guarded: number;
      readonly open: number;
    }
  | {
      readonly type: 'outcome';
      readonly key: string;
      /** Undefined: nobody knows. */
      readonly revision?: number;
      readonly startedAtMs: number;
    }
  | { readonly type: 'trouble'; readonly message: string };
