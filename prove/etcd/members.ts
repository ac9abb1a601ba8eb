/** What the members of a cluster say about their leader, asked one by one. */
import { setTimeout as pause } from 'node:timers/promises';
import { MaintenanceService } from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';

const ANSWER_MS_MAX = 500;
const POLL_MS = 25;

interface View {
  readonly self: bigint;
  readonly leader: bigint;
  readonly term: number;
}

export class Members {
  readonly #clients: readonly GrpcClient[];

  constructor(urls: readonly string[]) {
    this.#clients = urls.map((url) => {
      const { hostname: host, port } = new URL(url);
      return new GrpcClient({ host, port: Number(port), connectTimeoutMs: ANSWER_MS_MAX });
    });
  }

  /** The member that the majority follows, once there is one in a term after `afterTerm`. */
  async leader(
    afterTerm = 0,
    withinMs = 20_000,
  ): Promise<{ readonly member: number; readonly term: number }> {
    const until = performance.now() + withinMs;
    while (performance.now() < until) {
      const views = await this.#ask();
      for (const [member, view] of views.entries()) {
        const followers = views.filter(
          (other) => view && other?.leader === view.self && other.term === view.term,
        );
        if (view && view.term > afterTerm && followers.length > this.#clients.length / 2) {
          return { member, term: view.term };
        }
      }
      await pause(POLL_MS);
    }
    throw new Error(`no leader within ${withinMs / 1_000} s`);
  }

  /** Resolves when every member follows one leader. */
  async whole(withinMs = 30_000): Promise<void> {
    const until = performance.now() + withinMs;
    while (performance.now() < until) {
      const leaders = new Set((await this.#ask()).map((view) => view?.leader ?? 0n));
      if (leaders.size === 1 && !leaders.has(0n)) return;
      await pause(POLL_MS);
    }
    throw new Error(`the cluster is not whole within ${withinMs / 1_000} s`);
  }

  close(): void {
    for (const client of this.#clients) client.destroy();
  }

  #ask(): Promise<(View | undefined)[]> {
    return Promise.all(
      this.#clients.map((client) =>
        client
          .unary(MaintenanceService.Status, {}, { effect: 'read', deadlineMs: ANSWER_MS_MAX })
          .then(({ header, leader, raftTerm }) => ({
            self: header?.memberId ?? 0n,
            leader,
            term: Number(raftTerm),
          }))
          .catch(() => undefined),
      ),
    );
  }
}
