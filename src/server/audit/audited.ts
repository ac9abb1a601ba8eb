/** Handlers of acts, with the log before, around or behind them; all others stay as they are. */
import type { Backend, Call } from '../backend.ts';
import type { Handler, StreamHandler, UnaryHandler } from '../services/service.ts';
import { type Act, actOf, mayBeAct } from './acts.ts';

export function audited(handler: Handler, backend: Backend): Handler {
  if (!backend.audit.log || !mayBeAct(handler.method)) return handler;
  return handler.kind === 'unary' ? unary(handler, backend) : stream(handler, backend);
}

function unary(handler: UnaryHandler, backend: Backend): UnaryHandler {
  const run = async (request: never, call: Call): Promise<object> => {
    const act = actOf(handler.method, request);
    if (!act) return handler.run(request, call);
    try {
      if (act.kind !== 'around') return await handler.run(request, call);
      backend.admin(call);
      const work = async (): Promise<object> => handler.run(request, call);
      return await backend.audit.around(call, act, work, { remedy: act.remedy });
    } catch (error) {
      backend.audit.refused(call, act, error);
      throw error;
    }
  };
  return { ...handler, run };
}

/** Streams of answers to one request, of which only the snapshot is an act. */
function stream(handler: StreamHandler, backend: Backend): StreamHandler {
  return {
    ...handler,
    async *run(requests, call) {
      const act = actOf(handler.method, {});
      if (!act) yield* handler.run(requests, call);
      else yield* recorded(handler.run(requests, call), { act, backend, call });
    },
  };
}

interface Recording {
  readonly act: Act;
  readonly backend: Backend;
  readonly call: Call;
}

/** Nothing of it leaves before the log says so; whether all of it did is in the second entry. */
async function* recorded(
  answers: AsyncIterable<object>,
  { act, backend, call }: Recording,
): AsyncGenerator<object> {
  try {
    backend.admin(call);
  } catch (error) {
    backend.audit.refused(call, act, error);
    throw error;
  }
  let end = (_whole: boolean): void => {};
  const ended = new Promise<boolean>((resolve) => {
    end = resolve;
  });
  let telling: Promise<unknown> = Promise.resolve();
  await new Promise<void>((begun, failed) => {
    const work = (): Promise<boolean> => {
      begun();
      return ended;
    };
    telling = backend.audit.around(call, act, work, {
      remedy: act.remedy,
      ended: (whole) => (whole ? {} : { outcome: 'refused', reason: 'broken off' }),
    });
    telling.catch(failed);
  });
  try {
    yield* answers;
    end(true);
  } finally {
    end(false);
    await telling;
  }
}
