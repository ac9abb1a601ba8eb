/** The PostgreSQL engine and its adapters. */
export type {
  Driver,
  ListenHandlers,
  PGliteLike,
  PgClient,
  PgPool,
  PostgresJs,
} from './driver.ts';
export {
  open,
  openPostgresEngine,
  type PostgresConnection,
  type PostgresOptions,
  type PostgresUrlOptions,
} from './open.ts';
