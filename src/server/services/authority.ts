/** What Holdfast's own clients ask of the authority, beyond etcd. */
import { AuthorityService } from '../../wire/messages/services.ts';
import type { Backend } from '../backend.ts';
import { type Handler, unary } from './service.ts';

export function authorityService(backend: Backend): Handler[] {
  return [
    unary(AuthorityService.LiftEra, async ({ era }, call) => {
      if (era === 0) {
        backend.gate.authenticated(call.identity);
        return { header: backend.header((await backend.engine.status()).header) };
      }
      backend.admin(call);
      return { header: backend.header(await backend.engine.liftEra(era)) };
    }),
  ];
}
