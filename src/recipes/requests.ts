/** The requests of a session that are under way, each until it is answered or given up on. */
import { Bag, type Bagged } from '../base/bag.ts';

interface Request extends Bagged {
  readonly startedAtMs: number;
  readonly reject: (error: unknown) => void;
}

export class Requests {
  readonly #underWay = new Bag<Request>();

  /** Settles as `send` does; rejects when the request is given up on before. */
  send<T>(send: () => Promise<T>, startedAtMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const answer = send();
      const request: Request = { startedAtMs, reject, place: undefined };
      this.#underWay.add(request);
      answer.then(
        (value) => {
          this.#underWay.delete(request);
          resolve(value);
        },
        (error: unknown) => {
          this.#underWay.delete(request);
          reject(error);
        },
      );
    });
  }

  /** Rejects those that started at `untilMs` or before. */
  giveUp(untilMs: number, error: () => unknown): void {
    for (const request of this.#underWay) {
      if (request.startedAtMs > untilMs) continue;
      this.#underWay.delete(request);
      request.reject(error());
    }
  }
}
