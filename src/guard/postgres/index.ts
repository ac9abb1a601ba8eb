export {
  type AdmitOptions,
  PostgresGuard,
  protectRows,
  protectTable,
  unprotectTable,
} from './guard.ts';
export { drizzleQuery, type QueryFunction, type Transaction } from './query.ts';
export { installSql, SCHEMA_VERSION } from './schema.ts';
