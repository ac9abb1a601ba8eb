/**
 * Which history the cluster tells, and whether it is still the one this client has seen.
 *
 * An etcd restored from a backup goes back to lower revisions, and would grant tokens it granted
 * before. Two things give that away: another cluster id, or a linearizable answer below a revision
 * that was already seen when the request went out. Then granting stops until an operator has lifted
 * the era. etcd itself knows no era; it stands under a key of ours, and every transaction that
 * attaches a lease, as every grant does, is tied to the era it was given.
 */
import { type Bytes, text, utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Compare, Header, KeyValue, Revision } from '../../model/transaction.ts';
import { headerToModel } from '../../wire/messages/convert.ts';
import type { ResponseHeader } from '../../wire/messages/gen/rpc.ts';

/** Where the era stands in a cluster that keeps none itself. */
export const ERA_KEY: Bytes = utf8('.holdfast/era');

export interface Moment {
  readonly seen: Revision;
}

export class History {
  /** A Holdfast server says its era in every header; an etcd never does. */
  readonly keepsEra: boolean;
  #clusterId: bigint | undefined;
  #seen: Revision = 0;
  #era = 0;
  #eraModRevision: Revision = 0;
  #regressed: HoldfastError | undefined;

  constructor(keepsEra: boolean) {
    this.keepsEra = keepsEra;
  }

  get era(): number {
    return this.#era;
  }

  get regressed(): HoldfastError | undefined {
    return this.#regressed;
  }

  /** Call before a request goes out; throws when this history is not to be built on. */
  begin(): Moment {
    if (this.#regressed) throw this.#regressed;
    return { seen: this.#seen };
  }

  /** The header of a linearizable answer to a request that began at `moment`. */
  confirm(header: ResponseHeader | undefined, moment: Moment): Header {
    const own = this.header(header);
    const clusterId = header?.clusterId ?? 0n;
    this.#clusterId ??= clusterId;
    if (clusterId !== this.#clusterId) this.#goneBack('its identity has changed');
    if (own.revision < moment.seen) {
      this.#goneBack(`it stands at revision ${own.revision}, and was at ${moment.seen} before`);
    }
    if (own.revision > this.#seen) this.#seen = own.revision;
    return own;
  }

  /** A header without conclusions: of watches and renewals, which may come late. */
  header(header: ResponseHeader | undefined): Header {
    const own = headerToModel(header);
    if (this.keepsEra) {
      if (own.era > this.#era) this.#era = own.era;
      return own;
    }
    return { revision: own.revision, era: this.#era };
  }

  /** What stands under the era's key now. */
  adoptEra(kv: KeyValue | undefined): void {
    const era = kv ? Number(text(kv.value)) : 0;
    this.#eraModRevision = kv?.modRevision ?? 0;
    if (Number.isInteger(era) && era > this.#era) this.#era = era;
  }

  /** Holds as long as nobody has lifted the era since this client looked. */
  eraUnchanged(): Compare {
    return { key: ERA_KEY, target: 'mod', result: '=', value: this.#eraModRevision };
  }

  /** An operator has lifted the era: whatever the history is now, it is the one to build on. */
  accept(header: ResponseHeader | undefined): void {
    this.#regressed = undefined;
    this.#clusterId = header?.clusterId;
    this.#seen = headerToModel(header).revision;
  }

  #goneBack(how: string): never {
    this.#regressed = new HoldfastError(
      'era-regressed',
      `the cluster has gone back in time (${how}): lift its era above ${this.#era} before anything is granted again`,
    );
    throw new HoldfastError(this.#regressed.code, this.#regressed.message, { outcome: 'unknown' });
  }
}
