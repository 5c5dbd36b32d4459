-- What Postgres has released to Redis, per tenant, limit and period. Redis may be lost at any
-- moment: what was claimed for it and not spent stays unspent in that period.
create table claim (
    tenant_id text not null references tenant,
    limit_name text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    claimed bigint not null default 0 check (claimed >= 0),
    -- What the latest claim added: an upsert can't return the row as it was before.
    last_block bigint not null default 0,
    -- The sum of the period's bucket_adjustment rows; the law is claimed <= capacity + adjustment.
    adjustment bigint not null default 0,
    primary key (tenant_id, limit_name, period_start)
);

-- How much a claim gets: what is needed, and of the rest up to `welcome`, but a quarter at most.
create function claim_block(unclaimed bigint, needed bigint, welcome bigint) returns bigint
    language sql immutable
    return greatest(0, least(unclaimed, greatest(needed, least(welcome, (unclaimed + 3) / 4))));

-- Top-ups and cuts, kept for ever.
create table bucket_adjustment (
    id bigint generated always as identity primary key,
    tenant_id text not null references tenant,
    limit_name text not null,
    -- The period it counts in; null for a continuous limit.
    period_start timestamptz,
    amount bigint not null check (amount <> 0),
    reason text not null,
    created_at timestamptz not null default now()
);
create index bucket_adjustment_tenant on bucket_adjustment (tenant_id, limit_name, created_at);

-- Continuous buckets that have been granted from, and in which life of the tenant's keys in Redis
-- they were made first. One that is missing in that life is about to be made, and starts full; one
-- that is missing in another was lost, and starts empty.
create table bucket_start (
    tenant_id text not null references tenant,
    limit_name text not null,
    home text not null,
    started_at timestamptz not null default now(),
    primary key (tenant_id, limit_name)
);
