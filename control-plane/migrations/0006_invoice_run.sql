-- What lets a run make the invoices of very many tenants without going through all of their usage.

-- Usage that came more than five minutes after the end of its quarter hour, to be looked at when the
-- tenant's next invoice is made. A quarter hour may be here more than once. What is not here came in
-- time: a period whose invoice was made later than that is known to be billed in full.
create table usage_late (
    id bigint generated always as identity primary key,
    tenant_id text not null,
    quarter timestamptz not null
);
create index usage_late_tenant_id on usage_late (tenant_id);

create function usage_rollup_late() returns trigger language plpgsql as $$
begin
    insert into usage_late (tenant_id, quarter) values (new.tenant_id, new.quarter);
    return null;
end $$;
-- By the clock at this moment: the transaction may have begun long ago.
create trigger usage_rollup_late after insert or update on usage_rollup
    for each row when (new.quarter < clock_timestamp() - interval '20 minutes')
    execute function usage_rollup_late();

-- Whoever writes to the rollup holds this lock, shared, from before the first row until the commit.
create function usage_rollup_writes() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(5, 1);
    return null;
end $$;
create trigger usage_rollup_writes before insert or update on usage_rollup
    for each statement execute function usage_rollup_writes();

-- Waits for those who write to the rollup at this moment, and returns a time t: what was written before
-- t is committed, and what is not committed is written after t, or fails.
create function usage_read_point() returns timestamptz language plpgsql as $$
declare t timestamptz;
begin
    perform pg_advisory_lock(5, 1);
    t := clock_timestamp();
    perform pg_advisory_unlock(5, 1);
    return t;
end $$;

-- All that was written to the rollup before this time was seen when the invoice was made. Of invoices
-- of earlier versions nobody knows.
alter table invoice add column usage_read_at timestamptz not null default '-infinity';

-- The rollup is in the order of time, more or less: this finds the blocks of a month.
create index usage_rollup_quarter on usage_rollup using brin (quarter) with (autosummarize = on);

-- What a run is about to sum up: while one set of terms was in force for a tenant. A table, because
-- Postgres joins usage with it in parallel, and knows from its statistics how. Rows that a killed run has
-- left go with a later one.
create sequence invoice_run_id;
create unlogged table invoice_run_stretch (
    run bigint not null,
    place integer not null,
    tenant_id text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    staged_at timestamptz not null default now()
);

-- One index is enough: by the period that was billed, and within it by the invoice that did.
alter table invoice_quantity drop constraint invoice_quantity_pkey;
alter table invoice_quantity add primary key (period_invoice_id, invoice_id, starts_at, meter, model);
drop index invoice_quantity_period;
-- What an invoice priced for earlier periods.
create index invoice_quantity_late on invoice_quantity (invoice_id) where invoice_id <> period_invoice_id;

-- The rows of an invoice are written with it, in one transaction, and never again. To check each of them
-- against the invoice would take most of the time of a run; and since numbers have no gaps, the invoice
-- itself is written last.
alter table invoice_terms drop constraint invoice_terms_invoice_id_fkey;
alter table invoice_quantity
    drop constraint invoice_quantity_invoice_id_fkey,
    drop constraint invoice_quantity_period_invoice_id_fkey,
    drop constraint invoice_quantity_period_invoice_id_starts_at_fkey;
alter table invoice_line drop constraint invoice_line_invoice_id_fkey;
