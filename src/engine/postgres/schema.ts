/**
 * The tables, and the steps that bring a schema from any earlier format to this one.
 *
 *   meta      one row: the truth about revision, era, compaction, identity; its lock orders writes
 *   live      the keys as they are now
 *   log       every change since the last compaction, in order; reads of the past and watches
 *   leases    who may still hold keys, until when by this database's clock
 *   requests  per client process the last batch applied and its answer, so that a batch whose
 *             answer was lost can be asked for, and sent again without being applied twice
 *   tidied    how far removal of compacted history has come
 *
 * Steps are numbered and each runs once, under a lock that ends with its transaction; a schema that
 * is up to date is only looked at, so the user that runs every day needs no right to create.
 */
import { HoldfastError } from '../../model/errors.ts';
import { procedures } from './procedures.ts';
import { queries } from './queries.ts';

export const FORMAT = 1;

/** Longest key: what fits an index page in PostgreSQL with room to spare. */
export const KEY_BYTES_MAX = 2_000;

/** Above every key that can be stored: where a range without an end ends. */
export const BEYOND_KEYS: string = 'ff'.repeat(KEY_BYTES_MAX + 1);

const tables = (s: string, cluster: bigint): string => `
create schema if not exists ${s};
create table if not exists ${s}.meta (
  only_one boolean primary key default true check (only_one),
  format int not null, cluster bigint not null, era int not null, revision bigint not null,
  compacted bigint not null, alarms int not null, clock timestamptz not null
) with (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
create table if not exists ${s}.live (
  key bytea primary key, value bytea not null, created bigint not null, modified bigint not null,
  version bigint not null, lease bigint not null);
create index if not exists live_lease on ${s}.live (lease) where lease <> 0;
create table if not exists ${s}.log (
  revision bigint, sub int, key bytea not null, deleted boolean not null, value bytea not null,
  created bigint not null, version bigint not null, lease bigint not null,
  primary key (revision, sub));
create unique index if not exists log_key on ${s}.log (key, revision);
create table if not exists ${s}.leases (
  id bigint primary key, ttl_ms bigint not null, expires timestamptz not null);
create index if not exists leases_expires on ${s}.leases (expires);
create table if not exists ${s}.requests (
  client uuid primary key, seq bigint not null, stamp timestamptz not null, result text not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
create table if not exists ${s}.tidied (
  only_one boolean primary key default true check (only_one), tidied bigint not null);
insert into ${s}.tidied (tidied) values (0) on conflict do nothing;
insert into ${s}.meta (format, cluster, era, revision, compacted, alarms, clock)
  values (0, ${cluster}, 0, 1, 0, 0, clock_timestamp()) on conflict do nothing;
${procedures(s)}
${queries(s)}
`;

/** A name that needs no quoting anywhere, and leaves room for what is made from it. */
export function checkSchema(name: string): string {
  if (/^[a-z_][a-z0-9_]{0,40}$/.test(name) && !name.startsWith('pg_')) return name;
  throw new HoldfastError(
    'invalid-argument',
    `"${name.slice(0, 60)}" cannot be a schema: lower-case letters, digits and _, at most 41`,
  );
}

/** Answers 'true' when the schema is there. */
export function presenceQuery(s: string): string {
  return `select (to_regclass('${s}.meta') is not null)::text as result`;
}

/** Answers its format; asks only when it is there. */
export function formatQuery(s: string): string {
  return `select format::text as result from ${s}.meta`;
}

/** One message that brings the schema to `FORMAT`; harmless when somebody else was faster. */
export function migration(s: string, cluster: bigint): string {
  return `do $migrate$
declare present int := 0;
begin
  perform pg_advisory_xact_lock(hashtext('holdfast ${s} format'));
  -- Asked of the catalogue itself: what this session remembers of it may be older than the lock.
  if exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n
      on n.oid = c.relnamespace where n.nspname = '${s}' and c.relname = 'meta') then
    execute 'select format from ${s}.meta' into present;
  end if;
  if coalesce(present, 0) < 1 then
    execute $step1$${tables(s, cluster)}$step1$;
    execute 'update ${s}.meta set format = 1';
  end if;
end $migrate$`;
}
