/** Sealed tokens from a Holdfast server; an etcd has none. */
import { HoldfastError } from '../../model/errors.ts';
import type { Sealer } from '../../model/seal.ts';
import { AuthorityService } from '../../wire/messages/services.ts';
import { attachedStatus, FAILED_PRECONDITION } from '../../wire/messages/status.ts';
import type { Channel } from './channel.ts';

export function sealerOf(channel: Channel): Sealer {
  return {
    // Sealing changes nothing, so it may be asked for again.
    async seal(request, { signal } = {}) {
      const sealed = await channel
        .unary(AuthorityService.SealToken, request, { effect: 'read', signal })
        .catch(told);
      const { seal, token, tenant, resource, holder, validMs } = sealed;
      return { seal, token, tenant, resource, holder, validMs };
    },
    async rotate({ discard = false } = {}) {
      const effect = { effect: 'write' as const };
      const { keyId, published } = await channel.unary(
        AuthorityService.RotateSealKeys,
        { discard },
        effect,
      );
      return { keyId, published };
    },
  };
}

/** Of this method alone: the one condition that can fail is that the claim is held. */
function told(error: unknown): never {
  if (attachedStatus(error)?.code !== FAILED_PRECONDITION) throw error;
  const { message } = HoldfastError.from(error);
  throw new HoldfastError('grant-lost', message, { cause: error });
}
