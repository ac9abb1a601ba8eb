/**
 * Who is calling: by the token a call carries, or by the certificate its connection showed. Judged
 * anew for every call, so that a token that ends or a user that goes is noticed at once.
 */
import type { TLSSocket } from 'node:tls';
import type { Identity } from './access/gate.ts';
import { refusal } from './access/refusal.ts';
import type { Tokens } from './access/tokens.ts';

const NOBODY: Identity = { user: undefined };

/** What a call shows of its caller; looked at only while access control is on. */
export interface Credentials {
  /** The metadata of that name, or else the `authorization` header. */
  readonly token: string | undefined;
  readonly tls: TLSSocket | undefined;
}

export interface Callers {
  identify(shown: Credentials): Identity;
}

export interface CallerOptions {
  readonly tokens: Tokens;
  /** While access control is off nobody is asked. */
  readonly open: () => boolean;
  /** Take a verified client certificate's common name as the user's name. */
  readonly certificates: boolean;
}

export function callers({ tokens, open, certificates }: CallerOptions): Callers {
  const known = new WeakMap<TLSSocket, Identity>();
  return {
    identify(shown) {
      if (open()) return NOBODY;
      const { token, tls } = shown;
      if (token !== undefined && token !== '') return bearer(tokens, token);
      if (!certificates || !tls) return NOBODY;
      const identity = known.get(tls) ?? certificateUser(tls);
      known.set(tls, identity);
      return identity;
    },
  };
}

function bearer(tokens: Tokens, sent: string): Identity {
  const token = /^bearer /i.test(sent) ? sent.slice('bearer '.length) : sent;
  const identity = tokens.check(token);
  if (!identity) throw refusal('invalid auth token');
  return identity;
}

function certificateUser(tls: TLSSocket): Identity {
  const user = certificateName(tls);
  return user === '' ? NOBODY : { user };
}

/** Empty: a certificate that was not verified, or that names nobody, is no proof of anything. */
export function certificateName(tls: TLSSocket | undefined): string {
  if (!tls?.authorized) return '';
  const { CN } = tls.getPeerCertificate().subject ?? {};
  return typeof CN === 'string' ? CN : '';
}
