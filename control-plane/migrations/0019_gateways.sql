-- Gateways that asked for changes lately, and the version of the policy by which each rates requests
-- (0 without one). Null where a gateway did not say.
create table gateway (
    id text primary key,
    policy_version integer,
    seen_at timestamptz not null default now()
);
create index gateway_seen_at on gateway (seen_at);
