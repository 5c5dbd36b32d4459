-- Who is limited and billed, on which terms, and the credentials of everybody who calls.

create table plan (
    id text primary key check (id ~ '^[A-Za-z0-9._-]{1,64}$'),
    name text not null,
    created_at timestamptz not null default now()
);

-- Terms never change: a change of a plan is a new version.
create table plan_version (
    plan_id text not null references plan,
    version integer not null check (version > 0),
    terms jsonb not null,
    created_at timestamptz not null default now(),
    primary key (plan_id, version)
);

create table tenant (
    id text primary key check (id ~ '^[A-Za-z0-9._-]{1,64}$'),
    name text not null,
    state text not null default 'active' check (state in ('active', 'suspended')),
    plan_id text not null references plan,
    time_zone text not null default 'UTC',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index tenant_plan_id on tenant (plan_id);

-- Which terms price a tenant's usage from when. Starts on a quarter hour, as rollups do.
create table tenant_terms (
    tenant_id text not null references tenant,
    starts_at timestamptz not null check (extract(epoch from starts_at)::bigint % 900 = 0),
    plan_id text not null,
    plan_version integer not null,
    primary key (tenant_id, starts_at),
    foreign key (plan_id, plan_version) references plan_version
);

-- A tenant's own keys, as SHA-256: the key itself is shown once and kept nowhere.
create table api_key (
    id bigint generated always as identity primary key,
    tenant_id text not null references tenant,
    name text not null,
    hash bytea not null unique check (length(hash) = 32),
    -- The first characters of the key, for people to tell keys apart.
    hint text not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
create index api_key_tenant_id on api_key (tenant_id);

-- Tokens of operators and gateways, beside those in the configuration.
create table access_token (
    id bigint generated always as identity primary key,
    role text not null check (role in ('admin', 'gateway')),
    name text not null,
    hash bytea not null unique check (length(hash) = 32),
    hint text not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

-- What gateways must hear of. The one row of config_revision is locked by whoever writes a change,
-- so that revisions become visible in their order and a long poll can't skip one.
create table config_revision (
    only_row boolean primary key default true check (only_row),
    revision bigint not null
);
insert into config_revision (revision) values (1);

create table config_change (
    revision bigint primary key,
    tenant_id text not null,
    changed_at timestamptz not null default now()
);
