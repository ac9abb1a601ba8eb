/** The audit log, for those who may do everything: its entries, its signed head, its pruning. */
import { toHex } from '../../base/bytes.ts';
import { headSigned } from '../../model/audit-export.ts';
import { HoldfastError } from '../../model/errors.ts';
import { AuditService } from '../../wire/messages/services.ts';
import type { AuditLog } from '../audit/log.ts';
import type { Backend, Call } from '../backend.ts';
import { type Handler, unary } from './service.ts';

/** An answer with so many entries, each of which is short, is far below any limit of a message. */
const ENTRIES_MAX = 500;

export function auditService(backend: Backend): Handler[] {
  const log = (call: Call): AuditLog => {
    backend.admin(call);
    if (backend.audit.log) return backend.audit.log;
    throw new HoldfastError('unsupported', 'this server keeps no audit log');
  };
  return [
    unary(AuditService.List, async ({ from, limit }, call) => {
      const { head, header } = await log(call).head();
      const most = limit > 0 ? Math.min(limit, ENTRIES_MAX) : ENTRIES_MAX;
      const entries = await log(call).entries(Math.max(from, head.first), most);
      return { header: backend.header(header), entries };
    }),
    unary(AuditService.Head, async (_request, call) => {
      const kept = log(call);
      // First: a key that is made now has an entry of its own.
      const signer = await backend.sealKeys.signer();
      const { head, header } = await kept.head();
      const { revision, era } = header;
      const { seq, hash, first } = head;
      const wallMs = Math.floor(backend.options.clock.wall());
      const said = { seq, hash, era, revision, wallMs, key: signer.publicKey };
      const signature = toHex(signer.sign(headSigned(said)));
      return { header: backend.header(header), ...said, signature, first };
    }),
    unary(AuditService.Prune, async ({ before }, call) => {
      const removed = await log(call).prune(before, backend.audit.actor(call));
      return { header: backend.header((await backend.engine.status()).header), removed };
    }),
  ];
}
