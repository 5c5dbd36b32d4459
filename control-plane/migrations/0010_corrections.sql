-- Usage that operators add or take away afterwards.

-- Kept for ever and never changed: what was wrong in a correction is corrected by another one.
create table usage_correction (
    id bigint generated always as identity primary key,
    tenant_id text not null references tenant,
    -- Chosen by who sends it, so that a repeat is known.
    name text not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    reason text not null,
    created_at timestamptz not null default now(),
    unique (tenant_id, name)
);

create table usage_correction_entry (
    correction_id bigint not null references usage_correction,
    -- From 1, as they were sent.
    position integer not null check (position > 0),
    -- What is corrected: a row of usage_rollup.
    quarter timestamptz not null check (extract(epoch from quarter)::bigint % 900 = 0),
    meter text not null,
    model text not null,
    -- Added to it; negative to take away.
    tokens bigint not null,
    requests bigint not null,
    check (tokens <> 0 or requests <> 0),
    primary key (correction_id, position)
);

create function never_changes() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are never changed or deleted', tg_table_name;
end $$;
create trigger never_changes before update or delete on usage_correction
    for each row execute function never_changes();
create trigger never_changes before update or delete on usage_correction_entry
    for each row execute function never_changes();
