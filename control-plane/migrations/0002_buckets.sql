-- What Postgres has released to Redis, per tenant, limit and period. Redis may be lost at any
-- moment: what was claimed for it and not spent stays unspent in that period.
create table claim (
    tenant_id text not null references tenant,
    limit_name text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    claimed bigint not null default 0 check (claimed >= 0),
    -- The sum of the period's bucket_adjustment rows; the law is claimed <= capacity + adjustment.
    adjustment bigint not null default 0,
    primary key (tenant_id, limit_name, period_start)
);

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

-- Continuous buckets that have been granted from. One that has a row here and is missing in Redis
-- was lost, and starts empty; one without starts full.
create table bucket_start (
    tenant_id text not null references tenant,
    limit_name text not null,
    started_at timestamptz not null default now(),
    primary key (tenant_id, limit_name)
);
