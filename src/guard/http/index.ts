export { LmdbMarks } from '../mark-table.ts';
export { type MarkStore, type MarkVerdict, MemoryMarks } from '../marks.ts';
export {
  HOLDER_HEADER,
  HttpGuard,
  type HttpGuardOptions,
  type HttpRequest,
  type HttpRoute,
  normalPath,
  type Problem,
  problemOf,
  refusalOf,
  TOKEN_HEADER,
} from './guard.ts';
export {
  admissionOf,
  expressGuard,
  fastifyGuard,
  guardFetch,
  guardListener,
} from './middleware.ts';
export { createGuardProxy, type GuardProxyOptions } from './proxy.ts';
export { type Admission, Turnstile, type TurnstileOptions } from './turnstile.ts';
