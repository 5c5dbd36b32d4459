-- Who asks for a read point keeps new writers waiting while it waits for one that writes. If that one hangs,
-- the whole ledger would. So it gives up, and the caller tries again.
alter function usage_read_point() set lock_timeout = '2s';
