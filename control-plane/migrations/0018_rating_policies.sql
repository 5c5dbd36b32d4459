-- Rating policies: who may pass, and what it costs.

create table policy (
    id text primary key check (id ~ '^[A-Za-z0-9._-]{1,64}$'),
    -- Null once it is deleted. Its versions stay, since usage names them.
    version integer,
    created_at timestamptz not null default now()
);

-- Texts never change. They are numbered across all policies, so that the one number in a usage
-- record says which text said the cost.
create table policy_version (
    version integer generated always as identity primary key,
    policy_id text not null references policy,
    source text not null,
    -- Gateways don't know what is left of a bucket, so they can't run it.
    reads_buckets boolean not null,
    created_at timestamptz not null default now(),
    unique (policy_id, version)
);
alter table policy
    add constraint policy_version_fkey foreign key (id, version) references policy_version (policy_id, version);

-- Which policy rates requests, by the door through which they come; null for none. Whoever changes
-- the text of a policy holds the row, so that nobody else gives that policy another task meanwhile.
create table rating (
    only_row boolean primary key default true check (only_row),
    gateways text references policy,
    data_api text references policy
);
insert into rating default values;

-- A revision without a tenant: gateways have another policy to run.
alter table config_change alter column tenant_id drop not null;
