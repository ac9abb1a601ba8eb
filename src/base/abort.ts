/**
 * Linked aborts that leave nothing behind.
 *
 * `AbortSignal.any` with a long-lived parent keeps every child alive on Node 20, so a client that
 * renews for a month would leak. A link is cut by whoever made it, in `finally`.
 */
export interface LinkedAbort {
  readonly controller: AbortController;
  readonly signal: AbortSignal;
  /** Removes the listeners from the parents. Idempotent. */
  unlink(): void;
}

/** A controller that aborts when any parent does, with that parent's reason. */
export function linkAbort(...parents: readonly (AbortSignal | undefined)[]): LinkedAbort {
  const controller = new AbortController();
  const links: (() => void)[] = [];
  const unlink = (): void => {
    for (const cut of links.splice(0)) cut();
  };
  for (const parent of parents) {
    if (!parent) continue;
    if (parent.aborted) {
      controller.abort(parent.reason);
      break;
    }
    const onAbort = (): void => {
      unlink();
      controller.abort(parent.reason);
    };
    parent.addEventListener('abort', onAbort, { once: true });
    links.push(() => parent.removeEventListener('abort', onAbort));
  }
  if (controller.signal.aborted) unlink();
  return { controller, signal: controller.signal, unlink };
}

/** Settles as `work` does, or rejects with the signal's reason as soon as it aborts. */
export function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      work.catch(() => {});
      reject(signal.reason);
      return;
    }
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
