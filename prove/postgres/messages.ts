/** What the experiment and its workers say to each other. */
export type ToWorker =
  | {
      readonly type: 'phase';
      readonly url: string;
      readonly direct: boolean;
      readonly ttlMs: number;
    }
  | { readonly type: 'stop' }
  | { readonly type: 'end' }
  /** The values of both registers: the guarded one and the one that believes everybody. */
  | { readonly type: 'values'; readonly guarded: number; readonly open: number }
  | { readonly type: 'written'; readonly accepted: boolean };

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'running' }
  | { readonly type: 'stopped' }
  | { readonly type: 'read'; readonly token: string }
  | {
      readonly type: 'write';
      readonly token: string;
      readonly guarded: number;
      readonly open: number;
    }
  /** The engine acknowledged the key with this name; or nobody knows. */
  | { readonly type: 'outcome'; readonly key: string; readonly acknowledged: boolean }
  | { readonly type: 'trouble'; readonly message: string };
