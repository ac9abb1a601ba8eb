/**
 * The SQL objects of the guard, versioned. Each version is applied at most once, all in one
 * statement, so that any query function can run it; a database with newer objects is left alone.
 *
 * Why a row and not a setting: a transaction-local setting could be made by anyone with
 * `set_config`. Instead, `admit` stamps the mark's row with the transaction that raised it; only
 * the functions here may write that row, it is undone with the transaction (and with a savepoint),
 * and it means nothing in the next transaction of the same pooled connection.
 */
export const SCHEMA_VERSION = 1;

const VERSION_1 = `
create table holdfast_guard.mark (
  resource text primary key check (length(resource) between 1 and 512),
  mark bigint not null default 0,
  -- The newest reader: a writer must pass it too.
  read_mark bigint not null default 0,
  holder text,
  at timestamptz,
  -- The transaction in which a token last passed. The start time is there because transaction
  -- numbers repeat when a dump is loaded into another cluster.
  passed_in xid8,
  passed_at timestamptz
);

create table holdfast_guard.job (
  id text primary key,
  token bigint not null,
  attempts integer not null,
  done boolean not null,
  result text
);

-- Raises the mark to the token, or refuses. Holds the mark's row until the transaction ends, so
-- that a newer token waits for this effect, and an older one finds the mark raised.
create function holdfast_guard.admit(
  resource text, token bigint, rule text default 'reign', holder text default null
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
declare
  found holdfast_guard.mark;
begin
  if token is null or token < 1 then
    raise exception using errcode = 'HF003', message = format('%s is not a token', token);
  end if;
  if rule is null or rule not in ('reign', 'once') then
    raise exception using errcode = 'HF003', message = format('%s is not a rule', rule);
  end if;
  insert into holdfast_guard.mark as m (resource, mark, holder, at, passed_in, passed_at)
  values (admit.resource, admit.token, admit.holder, clock_timestamp(), pg_current_xact_id(), now())
  on conflict on constraint mark_pkey do update
    set mark = excluded.mark,
        holder = case when m.mark = excluded.mark then coalesce(excluded.holder, m.holder)
                      else excluded.holder end,
        at = case when m.mark = excluded.mark then m.at else excluded.at end,
        passed_in = excluded.passed_in,
        passed_at = excluded.passed_at
    where m.read_mark <= excluded.mark
      and (m.mark < excluded.mark or (m.mark = excluded.mark and admit.rule = 'reign'))
  returning m.* into found;
  if found.resource is not null then
    return found.mark;
  end if;
  select * into found from holdfast_guard.mark m where m.resource = admit.resource;
  perform holdfast_guard.refuse(token, found);
end
$body$;

create function holdfast_guard.refuse(token bigint, found holdfast_guard.mark) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $body$
declare
  highest bigint := greatest(found.mark, found.read_mark);
begin
  raise exception using
    errcode = 'HF001',
    message = case when token < highest
      then format('stale: token %s < mark %s', token, highest)
      else format('stale: token %s = mark %s, and each token acts only once', token, highest) end,
    detail = json_build_object('token', token::text, 'mark', highest::text,
      'holder', found.holder, 'atMs', floor(extract(epoch from found.at) * 1000))::text;
end
$body$;

-- For readers: passes unless a newer writer has acted, holds newer writers off until the
-- transaction ends, and leaves a mark that an older writer will not pass.
create function holdfast_guard.admit_read(resource text, token bigint, holder text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
declare
  found holdfast_guard.mark;
begin
  if token is null or token < 1 then
    raise exception using errcode = 'HF003', message = format('%s is not a token', token);
  end if;
  insert into holdfast_guard.mark (resource, read_mark)
  values (admit_read.resource, admit_read.token)
  on conflict on constraint mark_pkey do nothing;
  -- Only the first reader of a grant writes; those after it share the row.
  update holdfast_guard.mark m set read_mark = admit_read.token
  where m.resource = admit_read.resource
    and m.read_mark < admit_read.token and m.mark <= admit_read.token;
  select * into found from holdfast_guard.mark m
  where m.resource = admit_read.resource for share;
  if found.mark > token then
    found.read_mark := 0;
    perform holdfast_guard.refuse(token, found);
  end if;
  return found.mark;
end
$body$;

create function holdfast_guard.mark_of(resource text) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp as $body$
  select coalesce((select m.mark from holdfast_guard.mark m where m.resource = mark_of.resource), 0)
$body$;

create function holdfast_guard.require_pass(resource text, relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
begin
  if exists (
    select from holdfast_guard.mark m
    where m.resource = require_pass.resource
      and m.passed_in = pg_current_xact_id_if_assigned() and m.passed_at = now()
  ) then
    return;
  end if;
  raise exception using
    errcode = 'HF002',
    message = format('table %s is protected: no token has passed for %L in this transaction',
      relation, resource),
    hint = format('Acquire the lock, then call "select holdfast_guard.admit(%L, TOKEN)" first in '
      'the same transaction (begin; select ...; your writes; commit).', resource);
end
$body$;

-- Arguments: a resource; or '' with a prefix and the column that completes it.
create function holdfast_guard.protect_statement() returns trigger
language plpgsql as $body$
begin
  if tg_argv[0] = '' then
    raise exception using errcode = 'HF002',
      message = format('table %s is protected row by row and cannot be truncated', tg_relid::regclass),
      hint = 'Delete the rows instead, each under its token.';
  end if;
  perform holdfast_guard.require_pass(tg_argv[0], tg_relid::regclass::text);
  return null;
end
$body$;

create function holdfast_guard.protect_row() returns trigger
language plpgsql as $body$
declare
  before text;
  after text;
begin
  if tg_op <> 'INSERT' then
    before := tg_argv[1] || coalesce(to_jsonb(old) ->> tg_argv[2], '');
    perform holdfast_guard.require_pass(before, tg_relid::regclass::text);
  end if;
  if tg_op <> 'DELETE' then
    after := tg_argv[1] || coalesce(to_jsonb(new) ->> tg_argv[2], '');
    if after is distinct from before then
      perform holdfast_guard.require_pass(after, tg_relid::regclass::text);
    end if;
  end if;
  return null;
end
$body$;

-- The whole table is one resource.
create function holdfast_guard.protect(relation regclass, resource text) returns void
language plpgsql as $body$
begin
  perform holdfast_guard.unprotect(relation);
  execute format('create trigger holdfast_guard before insert or update or delete or truncate on %s '
    'for each statement execute function holdfast_guard.protect_statement(%L)', relation, resource);
end
$body$;

-- Each row is a resource of its own: prefix || column. After the row's other triggers have spoken,
-- so that what is checked is what is stored.
create function holdfast_guard.protect_rows(relation regclass, prefix text, key_column text)
returns void
language plpgsql as $body$
begin
  if not exists (select from pg_catalog.pg_attribute a where a.attrelid = relation
                 and a.attname = key_column and a.attnum > 0 and not a.attisdropped) then
    raise exception using errcode = '42703',
      message = format('table %s has no column %I', relation, key_column);
  end if;
  perform holdfast_guard.unprotect(relation);
  execute format('create trigger holdfast_guard after insert or update or delete on %s '
    'for each row execute function holdfast_guard.protect_row('''', %L, %L)',
    relation, prefix, key_column);
  execute format('create trigger holdfast_guard_truncate before truncate on %s '
    'for each statement execute function holdfast_guard.protect_statement('''')', relation);
end
$body$;

create function holdfast_guard.unprotect(relation regclass) returns void
language plpgsql as $body$
begin
  execute format('drop trigger if exists holdfast_guard on %s', relation);
  execute format('drop trigger if exists holdfast_guard_truncate on %s', relation);
end
$body$;

-- Whether this database really compares, remembers and takes back; leaves nothing behind.
create function holdfast_guard.probe() returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
declare
  name text := 'holdfast probe ' || pg_current_xact_id()::text || ' ' || clock_timestamp()::text;
  verdict text := 'it admitted an older token';
begin
  begin
    perform holdfast_guard.admit(name, 9007199254740993);
    begin
      perform holdfast_guard.admit(name, 9007199254740992);
    exception when sqlstate 'HF001' then
      verdict := 'ok';
    end;
    begin
      perform holdfast_guard.admit(name, 9007199254740993, 'once');
      verdict := 'it admitted a token twice';
    exception when sqlstate 'HF001' then null;
    end;
    perform holdfast_guard.require_pass(name, 'probe');
    raise exception using errcode = 'HF009', message = 'undo';
  exception
    when sqlstate 'HF009' then null;
    when sqlstate 'HF002' then
      if verdict = 'ok' then verdict := 'it forgot a pass within its transaction'; end if;
  end;
  if holdfast_guard.mark_of(name) <> 0 then
    verdict := 'it kept a mark that was rolled back';
  end if;
  return verdict;
end
$body$;

revoke all on all functions in schema holdfast_guard from public;
revoke all on all tables in schema holdfast_guard from public;
grant usage on schema holdfast_guard to public;
grant execute on function holdfast_guard.admit, holdfast_guard.admit_read,
  holdfast_guard.mark_of, holdfast_guard.probe, holdfast_guard.require_pass,
  holdfast_guard.protect_statement, holdfast_guard.protect_row, holdfast_guard.protect,
  holdfast_guard.protect_rows, holdfast_guard.unprotect to public;
`;

const VERSIONS: readonly string[] = [VERSION_1];

/** One statement that brings any older state to `SCHEMA_VERSION`. Needs the right to create. */
export function installSql(): string {
  const steps = VERSIONS.map(
    (sql, index) => `
  if present < ${index + 1} then
    execute $holdfast$${sql}$holdfast$;
    update holdfast_guard.version set version = ${index + 1};
  end if;`,
  );
  return `do $install$
declare
  present integer;
begin
  -- Two installers at once: the second waits and finds everything there.
  perform pg_advisory_xact_lock(hashtextextended('holdfast_guard install', 0));
  create schema if not exists holdfast_guard;
  create table if not exists holdfast_guard.version (version integer not null);
  select max(version) into present from holdfast_guard.version;
  if present is null then
    insert into holdfast_guard.version values (0);
    present := 0;
    grant select on holdfast_guard.version to public;
  end if;
${steps.join('\n')}
end
$install$`;
}
