-- Usage that services report themselves, and tokens that they take without a gateway.

alter table access_token
    drop constraint access_token_role_check,
    add constraint access_token_role_check check (role in ('admin', 'gateway', 'usage'));

-- What was answered under a caller's key, so that a repeat counts once. Kept for ever.
create table usage_report (
    -- Through which door it came: each has keys of its own.
    door text not null check (door in ('usage', 'data_api')),
    key text not null check (length(key) between 1 and 300),
    -- SHA-256 of what was asked, since a key stands for one thing only.
    asked bytea not null check (length(asked) = 32),
    -- Its record in usage_record.
    gateway text not null,
    worker text not null,
    sequence bigint not null,
    answer jsonb not null,
    -- Whether the buckets have paid. What was used before it was reported is stored first, and owed
    -- to the buckets after.
    paid boolean not null,
    created_at timestamptz not null default now(),
    primary key (door, key)
);
