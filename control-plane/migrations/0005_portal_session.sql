-- Tenants that are signed in to the portal. A session ends with its key, at sign-out, or in time.
create table portal_session (
    -- SHA-256 of what the cookie holds.
    hash bytea primary key check (length(hash) = 32),
    api_key_id bigint not null references api_key,
    expires_at timestamptz not null
);
create index portal_session_api_key_id on portal_session (api_key_id, expires_at);
