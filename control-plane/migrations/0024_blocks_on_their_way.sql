-- When the last block was claimed. One that is claimed and not fed yet is not there for other replicas,
-- who must not take the limit for used up.
alter table claim add column claimed_at timestamptz not null default '-infinity';
