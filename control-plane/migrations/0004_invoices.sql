-- Invoices, and all that is needed to compute each of them again.

-- Numbers have no gaps: the one row is locked from taking a number until the invoice is committed.
create table invoice_number (
    only_row boolean primary key default true check (only_row),
    last bigint not null check (last >= 0)
);
insert into invoice_number (last) values (0);

-- What a tenant owes for a billing period. A period that has a row here is closed; the next one of
-- the tenant starts at its end.
create table invoice (
    id bigint generated always as identity primary key,
    -- Given when the invoice becomes final.
    number text unique,
    tenant_id text not null references tenant,
    state text not null check (state in ('grace', 'final', 'sent', 'paid', 'void')),
    currency text not null,
    period_start timestamptz not null check (extract(epoch from period_start)::bigint % 900 = 0),
    period_end timestamptz not null check (extract(epoch from period_end)::bigint % 900 = 0),
    -- Whose calendar said when the period ends.
    time_zone text not null,
    -- In minor units of the currency; the sum of the lines.
    total_minor bigint not null,
    created_at timestamptz not null default now(),
    unique (tenant_id, period_start),
    check (period_start < period_end),
    check (number is not null or state in ('grace', 'void'))
);

-- The terms that priced the period, from when each was in force.
create table invoice_terms (
    invoice_id bigint not null references invoice,
    starts_at timestamptz not null,
    plan_id text not null,
    plan_version integer not null,
    primary key (invoice_id, starts_at),
    foreign key (plan_id, plan_version) references plan_version
);

-- The usage that the invoice priced, summed while the same terms were in force. What an invoice
-- prices later for an earlier period is a row of the later invoice, with the difference: so the
-- billed usage of a period is the sum of all rows of its invoice in `period_invoice_id`.
create table invoice_quantity (
    invoice_id bigint not null references invoice,
    -- The invoice of the period in which it was used: the same one, or an earlier one.
    period_invoice_id bigint not null references invoice,
    -- Start of the terms in force then, as in invoice_terms.
    starts_at timestamptz not null,
    meter text not null,
    model text not null,
    tokens numeric(20) not null,
    requests numeric(20) not null,
    primary key (invoice_id, period_invoice_id, starts_at, meter, model),
    foreign key (period_invoice_id, starts_at) references invoice_terms
);
create index invoice_quantity_period on invoice_quantity (period_invoice_id);

create table invoice_line (
    invoice_id bigint not null references invoice,
    -- From 1, in the order in which the lines are shown.
    position integer not null check (position > 0),
    name text not null,
    -- The price as it was charged; null in an adjustment.
    charge jsonb,
    -- Which part of the period the price was in force: so many of so many quarter hours.
    share_quarters integer,
    share_of integer,
    -- Whose usage was counted and how much; null where the amount doesn't depend on usage.
    meter text,
    quantity numeric(20),
    -- The invoice of the period that an adjustment is for.
    adjusts_invoice_id bigint references invoice,
    amount_minor bigint not null,
    primary key (invoice_id, position),
    check ((charge is null) = (adjusts_invoice_id is not null)),
    check ((charge is null) = (share_of is null) and (share_of is null) = (share_quarters is null)),
    check ((meter is null) = (quantity is null))
);
