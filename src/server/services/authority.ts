/** What Holdfast's own clients ask of the authority, beyond etcd. */
import { AuthorityService } from '../../wire/messages/services.ts';
import { actOf } from '../audit/acts.ts';
import type { Backend } from '../backend.ts';
import { published } from '../sealing/keyring.ts';
import { seal } from '../sealing/seal.ts';
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
    unary(AuthorityService.SealToken, async (request, call) => {
      const { header, seal: sealed, claims, validMs } = await seal(backend, request, call);
      const { token, tenant, resource, holder, expiresAtMs: expiresMs } = claims;
      const names = { tenant, resource, holder };
      return { header: backend.header(header), seal: sealed, token, ...names, expiresMs, validMs };
    }),
    unary(AuthorityService.RotateSealKeys, async (request, call) => {
      backend.admin(call);
      const act = actOf(AuthorityService.RotateSealKeys, request)!;
      const keyring = await backend.audit.alongside(call, act, (along) =>
        backend.sealKeys.rotate(request.discard, along),
      );
      return {
        header: backend.header((await backend.engine.status()).header),
        keyId: keyring.signing.id,
        published: published(keyring, backend.options.clock.wall()).map(({ id }) => id),
      };
    }),
  ];
}
