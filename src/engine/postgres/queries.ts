/**
 * The functions that only look, and the one that tidies up, as SQL text for one schema.
 *
 * Each is one statement with one snapshot, so what it answers is one moment: the revision and the
 * data that belongs to it. See `procedures.ts` for why they are functions and how they are named.
 */

/** The head of every answer: where the store stands, and when the next lease ends. */
const HEAD = `'{"h":' || m.revision || ',"era":' || m.era || ',"c":"' || m.cluster || '","compacted":'
    || m.compacted || ',"due":' || coalesce(round(due)::text, 'null')`;

/** Refuses a standby, and a store that is older than what this client has seen. */
const enter = (s: string): string => `
  if pg_is_in_recovery() then return '{"standby":true}'; end if;
  select * into m from ${s}.meta;
  if seen is not null and (m.cluster <> (seen->>0)::bigint
      or (m.era, m.revision) < ((seen->>1)::int, (seen->>2)::bigint)) then
    return '{"regressed":["' || m.cluster || '",' || m.era || ',' || m.revision || ']}';
  end if;
  select extract(epoch from min(l.expires) - clock_timestamp()) * 1000 into due from ${s}.leases l;`;

const read = (s: string): string => `
create or replace function ${s}.read_v1(batch jsonb) returns text
language plpgsql stable as $f$
declare
  m ${s}.meta; seen jsonb := batch->'seen'; due numeric; item jsonb; ok boolean; ops jsonb;
  answer text; answers text := ''; held ${s}.leases; pages bigint;
begin${enter(s)}
  for i in 0 .. jsonb_array_length(batch->'items') - 1 loop
    item := batch->'items'->i;
    case item->>'o'
    when 'r' then
      answer := case when item ? 'v'
        then ${s}.check_v1(jsonb_build_array(item), m.revision, m.compacted, now()) end;
      if answer is null then answer := ${s}.range_v1(item, m.revision); end if;
    when 'txn' then
      select x.ok, x.ops into ok, ops from ${s}.choose_v1(item) x;
      answer := ${s}.check_v1(ops, m.revision, m.compacted, now());
      if answer is null then
        answer := '';
        for j in 0 .. jsonb_array_length(ops) - 1 loop
          answer := answer || case when j > 0 then ',' else '' end
            || ${s}.range_v1(ops->j, m.revision);
        end loop;
        answer := '{"ok":' || ok || ',"h":' || m.revision || ',"o":[' || answer || ']}';
      end if;
    when 'lease' then
      select * into held from ${s}.leases x where x.id = (item->>'id')::bigint
        and x.expires > clock_timestamp();
      if not found then answer := '{"e":"lease-not-found"}';
      else
        answer := '{"ttl":' || held.ttl_ms || ',"left":'
          || round(extract(epoch from held.expires - clock_timestamp()) * 1000);
        if item ? 'keys' then
          select answer || ',"keys":[' || coalesce(string_agg('"' || encode(k.key, 'hex') || '"', ','
            order by k.key), '') || ']' into answer from ${s}.live k
            where k.lease = held.id and k.lease <> 0;
        end if;
        answer := answer || '}';
      end if;
    when 'leases' then
      select '{"ids":[' || coalesce(string_agg('"' || x.id || '"', ',' order by x.expires, x.id), '')
        || ']}' into answer from ${s}.leases x where x.expires > clock_timestamp();
    when 'status' then
      select sum(pg_total_relation_size(c.oid)) into pages from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = '${s}' and c.relkind = 'r';
      answer := '{"size":' || pages || ',"alarms":' || m.alarms || ',"version":"'
        || current_setting('server_version_num') || '"}';
    end case;
    answers := answers || case when i > 0 then ',' else '' end || answer;
  end loop;
  return ${HEAD} || ',"a":[' || answers || ']}';
end $f$;`;

/**
 * The log after a revision, whole revisions only: bounded by rows looked at and by bytes told, with
 * `upto` saying how far it got.
 */
const poll = (s: string): string => `
create or replace function ${s}.poll_v1(request jsonb) returns text
language plpgsql stable as $f$
declare
  m ${s}.meta; seen jsonb := request->'seen'; due numeric;
  since bigint := (request->>'after')::bigint; upto bigint; edge bigint; opening bigint;
  fit bigint; last bigint; lows bytea[]; highs bytea[]; told text; bytes_max int := 1000000;
begin${enter(s)}
  upto := least(coalesce((request->>'upto')::bigint, m.revision), m.revision);
  if since + 1 < m.compacted then
    return ${HEAD} || ',"lost":true}';
  end if;
  if since >= upto then return ${HEAD} || ',"upto":' || upto || ',"a":[]}'; end if;
  if request ? 'low' then
    select array_agg(decode(x.v, 'hex') order by x.n) into lows
      from jsonb_array_elements_text(request->'low') with ordinality x(v, n);
    select array_agg(decode(x.v, 'hex') order by x.n) into highs
      from jsonb_array_elements_text(request->'high') with ordinality x(v, n);
  end if;
  select g.revision into edge from ${s}.log g where g.revision > since and g.revision <= upto
    order by g.revision, g.sub offset 10000 limit 1;
  if edge is not null then
    select min(g.revision) into opening from ${s}.log g where g.revision > since;
    upto := greatest(edge - 1, opening);
  end if;
  select max(w.revision) filter (where w.weight <= bytes_max), min(w.revision), max(w.revision)
    into fit, opening, last from (
      select g.revision, sum(100 + octet_length(g.key) + octet_length(g.value))
        over (order by g.revision) as weight
      from ${s}.log g where g.revision > since and g.revision <= upto and (lows is null or exists (
        select from unnest(lows, highs) r(low, high) where g.key >= r.low and g.key < r.high))) w;
  if last > coalesce(fit, 0) then upto := coalesce(fit, opening); end if;
  select string_agg('[' || g.revision || ',' || g.deleted::int || ',"' || encode(g.key, 'hex')
      || '","' || encode(g.value, 'hex') || '",' || g.created || ',' || g.version || ',"' || g.lease
      || '"' || coalesce(',' || p.kv, '') || ']', ',' order by g.revision, g.sub)
    into told from ${s}.log g
    left join lateral (
      select '["' || encode(b.key, 'hex') || '","' || encode(b.value, 'hex') || '",' || b.created
        || ',' || b.revision || ',' || b.version || ',"' || b.lease || '"]' as kv
      from (select * from ${s}.log b where b.key = g.key and b.revision < g.revision
            order by b.revision desc limit 1) b
      where not b.deleted) p on request ? 'pk'
    where g.revision > since and g.revision <= upto and (lows is null or exists (
      select from unnest(lows, highs) r(low, high) where g.key >= r.low and g.key < r.high));
  return ${HEAD} || ',"upto":' || upto || ',"a":[' || coalesce(told, '') || ']}';
end $f$;`;

/**
 * Removes a step's worth of what compaction made unreachable: versions superseded at or before the
 * bound, and deletions before it. What stands at the bound itself stays: a watch may begin there.
 * Needs no lock on the row of truth, since nobody may read what it removes.
 */
const tidy = (s: string): string => `
create or replace function ${s}.tidy_v1() returns text
language plpgsql volatile as $f$
declare bound bigint; low bigint; high bigint;
begin
  if not pg_try_advisory_xact_lock(hashtext('holdfast ${s} tidy')) then return 'busy'; end if;
  delete from ${s}.requests r where r.stamp < clock_timestamp() - interval '1 day';
  select m.compacted into bound from ${s}.meta m;
  select t.tidied into low from ${s}.tidied t;
  select max(x.revision) into high from (
    select g.revision from ${s}.log g where g.revision > low and g.revision <= bound
    order by g.revision limit 2000) x;
  if high is null then return 'done'; end if;
  delete from ${s}.log d using ${s}.log n
    where n.revision > low and n.revision <= high and d.key = n.key and d.revision < n.revision;
  delete from ${s}.log d
    where d.revision > low and d.revision <= high and d.revision < bound and d.deleted;
  update ${s}.tidied set tidied = least(high, bound - 1);
  return case when high >= bound then 'done' else 'more' end;
end $f$;`;

export function queries(schema: string): string {
  return [read, poll, tidy].map((make) => make(schema)).join('\n');
}
