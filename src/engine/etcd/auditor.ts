/** The audit log of a Holdfast server, as its operator reads it; an etcd has none. */
import type { AuditEntry } from '../../model/audit.ts';
import type { SignedHead } from '../../model/audit-export.ts';
import { AuditService } from '../../wire/messages/services.ts';
import type { Channel } from './channel.ts';

export interface HeadNow {
  readonly head: SignedHead;
  /** The oldest entry that is there. */
  readonly first: number;
}

export interface Auditor {
  /** Entries from one on, oldest first; no more than one answer holds. */
  list(from: number, limit?: number): Promise<readonly AuditEntry[]>;
  head(): Promise<HeadNow>;
  /** Answers how many were removed. */
  prune(before: number): Promise<number>;
}

export function auditorOf(channel: Channel): Auditor {
  return {
    async list(from, limit = 0) {
      const answer = await channel.unary(AuditService.List, { from, limit }, { effect: 'read' });
      return answer.entries as AuditEntry[];
    },
    async head() {
      const answer = await channel.unary(AuditService.Head, {}, { effect: 'read' });
      const { header: _header, first, ...head } = answer;
      return { head, first };
    },
    async prune(before) {
      const answer = await channel.unary(AuditService.Prune, { before }, { effect: 'write' });
      return answer.removed;
    },
  };
}
