-- Which usage each line of an invoice has billed, by quarter hour.

-- The rollup has it, less what came after the invoice. That is rare, and is noted: how much came late, and
-- to what. Null in notes that only say where to look.
alter table usage_late
    add column meter text,
    add column model text,
    add column tokens bigint,
    add column requests bigint,
    add check (num_nulls(meter, model, tokens, requests) in (0, 4));

create or replace function usage_rollup_late() returns trigger language plpgsql as $$
declare
    tokens bigint := new.tokens;
    requests bigint := new.requests;
begin
    if tg_op = 'UPDATE' then
        tokens := tokens - old.tokens;
        requests := requests - old.requests;
    end if;
    insert into usage_late (tenant_id, quarter, meter, model, tokens, requests)
    values (new.tenant_id, new.quarter, new.meter, new.model, tokens, requests);
    return null;
end $$;

-- What an invoice has billed of a quarter hour, where the rollup can't tell it later:
-- - of earlier periods, all that it billed (from the notes, which are deleted then);
-- - of its own period, and later of that one, the quarter hours that were not over for twenty minutes when
--   it was drawn up, since usage may still come to these without being noted.
-- So the usage of a line is what is here; and for all other quarter hours of the invoice's own period the
-- rollup, less what later invoices have here, less what is noted and not billed yet.
create table invoice_quarter (
    invoice_id bigint not null,
    -- As in invoice_quantity.
    period_invoice_id bigint not null,
    quarter timestamptz not null,
    meter text not null,
    model text not null,
    tokens bigint not null,
    requests bigint not null,
    primary key (period_invoice_id, invoice_id, quarter, meter, model)
);
create index invoice_quarter_late on invoice_quarter (invoice_id) where invoice_id <> period_invoice_id;
create trigger never_changes before update or delete on invoice_quarter
    for each row execute function never_changes();

-- What an invoice has billed of each quarter hour in these stretches of time, meters and models, of the period
-- that `period_invoice` closed.
create function billed_quarters(
    tenant text, invoice bigint, period_invoice bigint,
    starts timestamptz[], ends timestamptz[], meters text[], models text[]
) returns table (quarter timestamptz, meter text, model text, tokens bigint, requests bigint)
    language sql stable as $$
    with stretch as (
        select * from unnest(starts, ends, meters, models) as given (starts_at, ends_at, meter, model)
    ), known as (
        select kept.quarter, kept.meter, kept.model, kept.tokens, kept.requests
        from invoice_quarter kept
        where kept.invoice_id = $2 and kept.period_invoice_id = $3
        union all
        -- The rest is of the invoice's own period.
        select own.quarter, own.meter, own.model, own.tokens, own.requests
        from invoice made
        cross join lateral (
            select rollup.quarter, rollup.meter, rollup.model, rollup.tokens, rollup.requests
            from usage_rollup rollup
            where rollup.tenant_id = $1
              and rollup.quarter >= made.period_start and rollup.quarter < made.period_end
            union all
            select later.quarter, later.meter, later.model, -later.tokens, -later.requests
            from invoice_quarter later
            join invoice biller on biller.id = later.invoice_id and not biller.rebilled
            where later.period_invoice_id = made.id and later.invoice_id <> made.id
            union all
            select note.quarter, note.meter, note.model, -note.tokens, -note.requests
            from usage_late note where note.tenant_id = $1 and note.meter is not null
        ) own
        where made.id = $2 and $2 = $3 and own.quarter < made.usage_read_at - interval '20 minutes'
    )
    select known.quarter, known.meter, known.model, sum(known.tokens)::bigint, sum(known.requests)::bigint
    from known
    join stretch on stretch.meter = known.meter and stretch.model = known.model
     and known.quarter >= stretch.starts_at and known.quarter < stretch.ends_at
    group by known.quarter, known.meter, known.model
    having sum(known.tokens) <> 0 or sum(known.requests) <> 0
$$;
