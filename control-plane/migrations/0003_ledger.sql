-- The ledger: what gateways admitted.

-- The last batch of each worker that is stored. This is what makes a repeat harmless, for ever.
create table usage_worker (
    gateway text not null,
    worker text not null,
    -- 0 only inside the transaction that stores a worker's first batch.
    last_sequence bigint not null check (last_sequence >= 0),
    seen_at timestamptz not null default now(),
    primary key (gateway, worker)
);

create table usage_record (
    gateway text not null,
    worker text not null,
    sequence bigint not null,
    -- The record's place in its batch.
    position integer not null,
    tenant_id text not null,
    minute timestamptz not null,
    meter text not null,
    model text not null,
    policy_version integer not null,
    tokens bigint not null check (tokens >= 0),
    requests bigint not null check (requests >= 0),
    received_at timestamptz not null default now(),
    primary key (gateway, worker, sequence, position)
);
create index usage_record_tenant_minute on usage_record (tenant_id, minute);

-- The same, summed per quarter hour: time zones and price changes can start on one.
create table usage_rollup (
    tenant_id text not null,
    quarter timestamptz not null check (extract(epoch from quarter)::bigint % 900 = 0),
    meter text not null,
    model text not null,
    -- At most 2^53 - 1, as everywhere.
    tokens bigint not null check (tokens <= 9007199254740991),
    requests bigint not null check (requests <= 9007199254740991),
    primary key (tenant_id, quarter, meter, model)
);

-- Batches that can't be stored: kept whole for people to look at, and acknowledged.
create table usage_quarantine (
    gateway text not null,
    worker text not null,
    sequence bigint not null,
    -- As it came. Not jsonb, which refuses some JSON.
    body text not null,
    reason text not null,
    received_at timestamptz not null default now(),
    primary key (gateway, worker, sequence)
);
