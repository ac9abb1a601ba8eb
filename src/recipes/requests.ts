/** The requests of a session that are under way, each until it is answered or given up on. */
import { Bag, type Bagged } from '../base/bag.ts';

interface Request extends Bagged {
  readonly startedAtMs: number;
  readonly fail: (error: unknown) => void;
}

export class Requests {
  readonly #underWay = new Bag<Request>();

  /**
   * Settles as `send` does, and fails when the request is given up on before. What has failed
   * settles as `again` does, if there is one.
   */
  send<T>(
    send: () => Promise<T>,
    startedAtMs: number,
    again?: (error: unknown) => Promise<T>,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const fail = again ? (error: unknown): void => resolve(again(error)) : reject;
      const request: Request = { startedAtMs, fail, place: undefined };
      this.#underWay.add(request);
      started(send).then(
        (value) => {
          this.#underWay.delete(request);
          resolve(value);
        },
        (error: unknown) => {
          // Given up on before, it has failed already.
          if (!this.#underWay.has(request)) return;
          this.#underWay.delete(request);
          fail(error);
        },
      );
    });
  }

  /** Rejects those that started at `untilMs` or before. */
  giveUp(untilMs: number, error: () => unknown): void {
    for (const request of this.#underWay) {
      if (request.startedAtMs > untilMs) continue;
      this.#underWay.delete(request);
      request.fail(error());
    }
  }
}

/** What is thrown at once fails like any other. */
function started<T>(send: () => Promise<T>): Promise<T> {
  try {
    return send();
  } catch (error) {
    return Promise.reject(error);
  }
}
