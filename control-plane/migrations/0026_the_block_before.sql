-- When the block before the last one was claimed: who claims the last one must know whether that may still
-- be on its way.
alter table claim add column claimed_before_at timestamptz not null default '-infinity';
