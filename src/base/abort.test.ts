import { describe, expect, test } from 'vitest';
import { abortable, linkAbort } from './abort.ts';

/** A signal that counts its listeners. */
function counted() {
  const controller = new AbortController();
  const { signal } = controller;
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = ((...args: Parameters<typeof add>) => {
    listeners++;
    add(...args);
  }) as typeof add;
  signal.removeEventListener = ((...args: Parameters<typeof remove>) => {
    listeners--;
    remove(...args);
  }) as typeof remove;
  return { controller, signal, listeners: () => listeners };
}

describe('a linked abort', () => {
  test('follows whichever parent aborts first, with its reason', () => {
    const [a, b] = [new AbortController(), new AbortController()];
    const link = linkAbort(a.signal, undefined, b.signal);
    b.abort('b');
    a.abort('a');
    expect(link.signal.reason).toBe('b');
  });

  test('is aborted from the start under an aborted parent', () => {
    expect(linkAbort(AbortSignal.abort('gone')).signal.reason).toBe('gone');
  });

  test('aborts alone without touching its parents', () => {
    const parent = new AbortController();
    linkAbort(parent.signal).controller.abort('mine');
    expect(parent.signal.aborted).toBe(false);
  });

  test('leaves nothing on a long-lived parent, unlinked or aborted', () => {
    const parent = counted();
    for (let i = 0; i < 100; i++) linkAbort(parent.signal).unlink();
    expect(parent.listeners()).toBe(0);
    const link = linkAbort(parent.signal);
    link.unlink();
    link.unlink();
    expect(parent.listeners()).toBe(0);
    const early = linkAbort(parent.signal, AbortSignal.abort());
    expect([early.signal.aborted, parent.listeners()]).toEqual([true, 0]);
  });

  test('no longer follows once unlinked', () => {
    const parent = new AbortController();
    const link = linkAbort(parent.signal);
    link.unlink();
    parent.abort();
    expect(link.signal.aborted).toBe(false);
  });
});

describe('an abortable wait', () => {
  test('settles as the work does and leaves no listener', async () => {
    const { signal, listeners } = counted();
    expect(await abortable(Promise.resolve(7), signal)).toBe(7);
    await expect(abortable(Promise.reject(new Error('no')), signal)).rejects.toThrow('no');
    await Promise.resolve();
    expect(listeners()).toBe(0);
  });

  test('rejects with the reason at once, and what the work does later disturbs nobody', async () => {
    const controller = new AbortController();
    let fail: (error: Error) => void = () => {};
    const work = new Promise<never>((_, reject) => {
      fail = reject;
    });
    const wait = abortable(work, controller.signal);
    controller.abort(new Error('stop'));
    await expect(wait).rejects.toThrow('stop');
    fail(new Error('too late'));
    await expect(abortable(Promise.reject(new Error('x')), controller.signal)).rejects.toThrow(
      'stop',
    );
  });
});
