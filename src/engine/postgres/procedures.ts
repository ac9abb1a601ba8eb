/**
 * The functions that run inside the database, as SQL text for one schema.
 *
 * Why in the database: everything that happens while the one row of truth is locked happens in one
 * statement, so a client that is paused, slow or gone never holds the store up. Why text in and
 * text out: no driver's type parsers come between, and the message needs no prepared statement,
 * which a pooler in transaction mode could not keep.
 *
 * Names end in `_v1`: a later format brings functions of its own beside these, so processes of two
 * versions can share a schema while an upgrade rolls. Requests are JSON made by `encode.ts`; its
 * comment is the key to the short field names. Bytes travel as hex, 64-bit numbers as text.
 */

/** One key as JSON text; `value` is an expression so that it can be left out. */
const kv = (row: string, value = `encode(${row}.value, 'hex')`): string =>
  `'["' || encode(${row}.key, 'hex') || '","' || ${value} || '",' || ${row}.created || ',' || ` +
  `${row}.modified || ',' || ${row}.version || ',"' || ${row}.lease || '"]'`;

const compareWith = (left: string, right: string): string =>
  `case sign when '=' then ${left} = ${right} when '!=' then ${left} <> ${right} ` +
  `when '<' then ${left} < ${right} else ${left} > ${right} end`;

/** Which branch a transaction takes, nested ones included, on the state before anything of it. */
const choose = (s: string): string => `
create or replace function ${s}.choose_v1(t jsonb, out ok boolean, out ops jsonb)
language plpgsql stable as $f$
declare
  c jsonb; op jsonb; kind text; sign text; low bytea; high bytea; blob bytea; want bigint;
  held boolean; sub_ok boolean; sub_ops jsonb; list jsonb := '[]';
begin
  ok := true;
  for i in 0 .. coalesce(jsonb_array_length(t->'c'), 0) - 1 loop
    c := t->'c'->i; kind := c->>'t'; sign := c->>'r';
    low := decode(c->>'k', 'hex'); high := decode(c->>'e', 'hex');
    if kind = 'value' then
      blob := decode(c->>'v', 'hex');
      select bool_and(${compareWith('l.value', 'blob')}) into held
        from ${s}.live l where l.key >= low and l.key < high;
      ok := coalesce(held, false);
    else
      want := (c->>'v')::bigint;
      select bool_and(${compareWith('n.v', 'want')}) into held
        from (select case kind when 'version' then l.version when 'create' then l.created
                when 'mod' then l.modified else l.lease end as v
              from ${s}.live l where l.key >= low and l.key < high) n;
      ok := coalesce(held, ${compareWith('0', 'want')});
    end if;
    exit when not ok;
  end loop;
  ops := coalesce(case when ok then t->'s' else t->'f' end, '[]');
  if t ? 'n' then
    for i in 0 .. jsonb_array_length(ops) - 1 loop
      op := ops->i;
      if op->>'o' = 't' then
        select x.ok, x.ops into sub_ok, sub_ops from ${s}.choose_v1(op) x;
        op := jsonb_build_object('o', 't', 'ok', sub_ok, 'ops', sub_ops);
      end if;
      list := list || jsonb_build_array(op);
    end loop;
    ops := list;
  end if;
end $f$;`;

/** Everything that can refuse the taken branch; null when nothing does. */
const check = (s: string): string => `
create or replace function ${s}.check_v1(ops jsonb, head bigint, compacted bigint, at_time timestamptz)
returns text language plpgsql stable as $f$
declare op jsonb; fault text; as_of bigint;
begin
  for i in 0 .. jsonb_array_length(ops) - 1 loop
    op := ops->i;
    case op->>'o'
    when 'p' then
      if op ? 'l' and not exists (
        select from ${s}.leases where id = (op->>'l')::bigint and expires > at_time
      ) then return '{"e":"lease-not-found","l":"' || (op->>'l') || '"}'; end if;
      if (op ? 'iv' or op ? 'il') and not exists (
        select from ${s}.live where key = decode(op->>'k', 'hex')
      ) then return '{"e":"key-not-found"}'; end if;
    when 'r' then
      as_of := coalesce((op->>'v')::bigint, 0);
      if as_of > head then return '{"e":"future-revision","v":' || as_of || '}'; end if;
      if as_of > 0 and as_of < compacted then return '{"e":"compacted","v":' || as_of || '}'; end if;
    when 't' then
      fault := ${s}.check_v1(op->'ops', head, compacted, at_time);
      if fault is not null then return fault; end if;
    else null;
    end case;
  end loop;
  return null;
end $f$;`;

const FILTERS =
  'h.modified >= min_mod and h.created >= min_create and ' +
  '(max_mod = 0 or h.modified <= max_mod) and (max_create = 0 or h.created <= max_create)';

/** The general read, over the keys of now or of an earlier revision. */
const shaped = (source: string): string => `
    select count(*), count(*) filter (where ${FILTERS}) into total, passed from (${source}) h;
    select string_agg(${kv('c', "case when bare then '' else encode(c.value, 'hex') end")}, ',')
      into kvs from (
        select h.* from (${source}) h where ${FILTERS} order by
          turn * case target when 'version' then h.version when 'create' then h.created
            when 'mod' then h.modified else 0 end,
          case when target = 'value' and turn = 1 then h.value end asc,
          case when target = 'value' and turn = -1 then h.value end desc,
          case when target = 'key' and turn = -1 then h.key end desc,
          h.key
        limit nullif(most, 0)) c;`;

/** One range. `fresh` is the revision for which the live keys are the answer. */
const range = (s: string): string => `
create or replace function ${s}.range_v1(op jsonb, fresh bigint) returns text
language plpgsql stable as $f$
declare
  low bytea := decode(op->>'k', 'hex'); high bytea := decode(op->>'e', 'hex');
  as_of bigint := coalesce((op->>'v')::bigint, 0); most bigint := coalesce((op->>'n')::bigint, 0);
  bare boolean := op ? 'ko'; target text := coalesce(op->>'t', 'key');
  turn int := case when op ? 'd' then -1 else 1 end;
  min_mod bigint := 0; max_mod bigint := 0; min_create bigint := 0; max_create bigint := 0;
  total bigint; passed bigint; kvs text;
begin
  if op ? 'f' then
    min_mod := (op->'f'->>0)::bigint; max_mod := (op->'f'->>1)::bigint;
    min_create := (op->'f'->>2)::bigint; max_create := (op->'f'->>3)::bigint;
  end if;
  if as_of <= 0 or as_of = fresh then
    if op ? 'co' then
      select count(*) into total from ${s}.live l where l.key >= low and l.key < high;
      passed := 0;
    elsif op ? 'i' then
      select ${kv('l', "case when bare then '' else encode(l.value, 'hex') end")} into kvs
        from ${s}.live l where l.key = low
        and l.modified >= min_mod and l.created >= min_create
        and (max_mod = 0 or l.modified <= max_mod) and (max_create = 0 or l.created <= max_create);
      passed := (kvs is not null)::int;
      if kvs is not null or not op ? 'f' then total := passed;
      else select count(*) into total from ${s}.live l where l.key = low; end if;
    elsif op ? 'f' or op ? 'd' or target <> 'key' then
${shaped(`select * from ${s}.live l where l.key >= low and l.key < high`)}
    else
      select count(*), string_agg(${kv('l', "case when bare then '' else encode(l.value, 'hex') end")}, ',')
        into passed, kvs
        from (select * from ${s}.live l where l.key >= low and l.key < high
              order by l.key limit nullif(most, 0)) l;
      if most = 0 or passed < most then total := passed;
      else select count(*) into total from ${s}.live l where l.key >= low and l.key < high; end if;
      passed := total;
    end if;
  else
${shaped(`select v.key, v.value, v.created, v.revision as modified, v.version, v.lease from (
        select distinct on (g.key) g.* from ${s}.log g
        where g.key >= low and g.key < high and g.revision <= as_of
        order by g.key, g.revision desc) v where not v.deleted`)}
    if op ? 'co' then kvs := null; passed := 0; end if;
  end if;
  return '{"r":[' || coalesce(kvs, '') || '],"m":' || (most > 0 and passed > most)::text
    || ',"n":' || total || '}';
end $f$;`;

/** Runs a checked branch at revision `rev`; `sub` counts its changes. */
const run = (s: string): string => `
create or replace function ${s}.run_v1(ops jsonb, rev bigint, inout sub int, out results text)
language plpgsql volatile as $f$
declare
  op jsonb; piece text; k bytea; high bytea; v bytea; own bigint; former ${s}.live; known boolean;
  gone int; gone_kvs text; inner_results text;
begin
  results := '';
  for i in 0 .. jsonb_array_length(ops) - 1 loop
    op := ops->i;
    k := decode(op->>'k', 'hex');
    case op->>'o'
    when 'p' then
      select * into former from ${s}.live l where l.key = k;
      known := found;
      v := case when op ? 'iv' then former.value else decode(op->>'v', 'hex') end;
      own := case when op ? 'il' then former.lease else coalesce((op->>'l')::bigint, 0) end;
      if known then
        update ${s}.live l set value = v, modified = rev, version = l.version + 1, lease = own
          where l.key = k;
      else
        insert into ${s}.live values (k, v, rev, rev, 1, own);
      end if;
      insert into ${s}.log values (rev, sub, k, false, v,
        case when known then former.created else rev end,
        case when known then former.version + 1 else 1 end, own);
      sub := sub + 1;
      piece := case when known and op ? 'pk' then '{"p":' || ${kv('former')} || '}' else '{}' end;
    when 'd' then
      high := decode(op->>'e', 'hex');
      with gone_rows as (delete from ${s}.live l where l.key >= k and l.key < high returning l.*),
      noted as (insert into ${s}.log
        select rev, sub + (row_number() over (order by g.key) - 1)::int, g.key, true, '', 0, 0, 0
        from gone_rows g)
      select count(*), case when op ? 'pk' then string_agg(${kv('g')}, ',' order by g.key) end
        into gone, gone_kvs from gone_rows g;
      sub := sub + gone;
      piece := '{"d":' || gone || ',"p":[' || coalesce(gone_kvs, '') || ']}';
    when 'r' then
      piece := ${s}.range_v1(op, 0);
    when 't' then
      select x.sub, x.results into sub, inner_results from ${s}.run_v1(op->'ops', rev, sub) x;
      piece := '{"ok":' || (op->>'ok') || ',"o":[' || inner_results || ']}';
    end case;
    results := results || case when i > 0 then ',' else '' end || piece;
  end loop;
end $f$;`;

/** Ends a lease: its keys go in one revision. Answers the newest revision afterwards. */
const endLease = (s: string): string => `
create or replace function ${s}.end_lease_v1(lease_id bigint, head bigint) returns bigint
language plpgsql volatile as $f$
declare gone int;
begin
  with gone_rows as (delete from ${s}.live l where l.lease = lease_id and l.lease <> 0 returning l.key)
  insert into ${s}.log
    select head + 1, (row_number() over (order by g.key) - 1)::int, g.key, true, '', 0, 0, 0
    from gone_rows g;
  get diagnostics gone = row_count;
  delete from ${s}.leases where id = lease_id;
  return head + (gone > 0)::int;
end $f$;`;

/** One request of a batch that is not a transaction; null when it is one. */
const applyLease = (s: string): string => `
create or replace function ${s}.lease_v1(item jsonb, inout head bigint, at_time timestamptz,
  out dirty boolean, out answer text)
language plpgsql volatile as $f$
declare wanted bigint := (item->>'id')::bigint; ttl bigint; ends timestamptz;
begin
  dirty := false;
  select l.ttl_ms, l.expires into ttl, ends from ${s}.leases l where l.id = wanted;
  if ends <= at_time then
    -- Over, if not yet swept: from here on it never existed.
    head := ${s}.end_lease_v1(wanted, head);
    dirty := true;
    ends := null;
  end if;
  case item->>'o'
  when 'grant' then
    if ends is not null then answer := '{"e":"lease-exists"}'; return; end if;
    ttl := (item->>'ttl')::bigint;
    insert into ${s}.leases values (wanted, ttl, at_time + ttl * interval '1 millisecond');
    dirty := true;
    answer := '{"ttl":' || ttl || '}';
  when 'alive' then
    if ends is null then answer := '{"e":"lease-not-found"}'; return; end if;
    update ${s}.leases set expires = at_time + ttl * interval '1 millisecond' where id = wanted;
    answer := '{"ttl":' || ttl || '}';
  when 'revoke' then
    if ends is null then answer := '{"e":"lease-not-found"}'; return; end if;
    head := ${s}.end_lease_v1(wanted, head);
    dirty := true;
    answer := '{}';
  end case;
end $f$;`;

/** A batch of writes, whole: the one door through which the store changes. */
const apply = (s: string): string => `
create or replace function ${s}.apply_v1(batch jsonb) returns text
language plpgsql volatile as $f$
declare
  m ${s}.meta; item jsonb; was bigint; at_time timestamptz; answer text; answers text := '';
  dirty boolean := false; touched boolean; ok boolean; ops jsonb; sub int; due numeric; swept int := 0;
  lease_id bigint; client_id uuid := (batch->>'client')::uuid; seq_no bigint := (batch->>'seq')::bigint;
  seen jsonb := batch->'seen'; items jsonb := batch->'items'; stored ${s}.requests; whole text;
begin
  if pg_is_in_recovery() then return '{"standby":true}'; end if;
  if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  select * into m from ${s}.meta for update;
  select * into stored from ${s}.requests r where r.client = client_id;
  if found and stored.seq >= seq_no then
    if stored.seq > seq_no then return '{"superseded":true}'; end if;
    return case when octet_length(stored.result) > 65536 then '{"large":true}' else stored.result end;
  end if;
  if seen is not null and (m.cluster <> (seen->>0)::bigint
      or (m.era, m.revision) < ((seen->>1)::int, (seen->>2)::bigint)) then
    return '{"regressed":[' || '"' || m.cluster || '",' || m.era || ',' || m.revision || ']}';
  end if;
  at_time := clock_timestamp();
  was := m.revision;
  if m.clock > at_time + interval '1 second' then
    -- The clock was set back. A lease must not live longer than one full TTL for it.
    update ${s}.leases l set expires = at_time + l.ttl_ms * interval '1 millisecond'
      where l.expires > at_time + l.ttl_ms * interval '1 millisecond';
    dirty := true;
  end if;
  for lease_id in select l.id from ${s}.leases l where l.expires <= at_time
    order by l.expires limit 200
  loop
    m.revision := ${s}.end_lease_v1(lease_id, m.revision);
    swept := swept + 1;
  end loop;
  dirty := dirty or swept > 0;
  for i in 0 .. jsonb_array_length(items) - 1 loop
    item := items->i;
    case item->>'o'
    when 'txn' then
      select x.ok, x.ops into ok, ops from ${s}.choose_v1(item) x;
      answer := null;
      if item ? 'p' and m.alarms & 1 = 1 then answer := '{"e":"no-space"}';
      elsif item ? 'x' then answer := ${s}.check_v1(ops, m.revision, m.compacted, at_time); end if;
      if answer is null then
        select x.sub, x.results into sub, answer from ${s}.run_v1(ops, m.revision + 1, 0) x;
        if sub > 0 then m.revision := m.revision + 1; end if;
        answer := '{"ok":' || ok || ',"h":' || m.revision || ',"o":[' || answer || ']}';
      end if;
    when 'compact' then
      if (item->>'v')::bigint <= m.compacted then
        answer := '{"e":"compacted","v":' || (item->>'v') || '}';
      elsif (item->>'v')::bigint > m.revision then
        answer := '{"e":"future-revision","v":' || (item->>'v') || '}';
      else
        m.compacted := (item->>'v')::bigint; dirty := true;
        answer := '{}';
      end if;
    when 'era' then
      m.era := greatest(m.era, (item->>'v')::int); dirty := true;
      answer := '{}';
    when 'alarm' then
      m.alarms := case when item ? 'on' then m.alarms | (item->>'v')::int
                       else m.alarms & ~(item->>'v')::int end;
      dirty := true; answer := '{}';
    when 'sweep' then answer := '{}';
    else
      if item->>'o' = 'grant' and m.alarms & 1 = 1 then answer := '{"e":"no-space"}';
      else
        select x.head, x.dirty, x.answer into m.revision, touched, answer
          from ${s}.lease_v1(item, m.revision, at_time) x;
        dirty := dirty or touched;
        if not answer like '{"e"%' then
          answer := '{"h":' || m.revision || ',' || substr(answer, 2);
          answer := replace(answer, ',}', '}');
        end if;
      end if;
    end case;
    answers := answers || case when i > 0 then ',' else '' end || answer;
  end loop;
  select extract(epoch from min(l.expires) - clock_timestamp()) * 1000 into due from ${s}.leases l;
  whole := '{"h":' || m.revision || ',"era":' || m.era || ',"c":"' || m.cluster || '","compacted":'
    || m.compacted || ',"due":' || coalesce(round(due)::text, 'null') || ',"a":[' || answers || ']}';
  if dirty or m.revision <> was then
    update ${s}.meta set revision = m.revision, compacted = m.compacted, era = m.era,
      alarms = m.alarms, clock = greatest(clock_timestamp(), at_time);
    insert into ${s}.requests as r values (client_id, seq_no, at_time, whole)
      on conflict (client) do update set seq = excluded.seq, stamp = excluded.stamp, result = excluded.result;
    if m.revision <> was then perform pg_notify('${s}', m.revision::text); end if;
    -- A client that stops reading must not keep the lock: long answers are fetched afterwards.
    if octet_length(whole) > 65536 then return '{"large":true}'; end if;
  end if;
  return whole;
end $f$;`;

/** The answer of this client's last batch, for when it was too long to be given under the lock. */
const outcome = (s: string): string => `
create or replace function ${s}.outcome_v1(request jsonb) returns text
language plpgsql stable as $f$
declare stored ${s}.requests;
begin
  if pg_is_in_recovery() then return '{"standby":true}'; end if;
  select * into stored from ${s}.requests r where r.client = (request->>'client')::uuid;
  if not found or stored.seq <> (request->>'seq')::bigint then return '{"superseded":true}'; end if;
  return stored.result;
end $f$;`;

export function procedures(schema: string): string {
  return [choose, check, range, run, endLease, applyLease, apply, outcome]
    .map((make) => make(schema))
    .join('\n');
}
