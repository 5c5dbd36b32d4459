-- What is changed afterwards: usage, by corrections, and invoices, by credit notes. Tenants that leave.

-- Kept for ever and never changed: what was wrong in a correction is corrected by another one.
create table usage_correction (
    id bigint generated always as identity primary key,
    tenant_id text not null references tenant,
    -- Chosen by who sends it, so that a repeat is known.
    name text not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    reason text not null,
    created_at timestamptz not null default now(),
    unique (tenant_id, name)
);

create table usage_correction_entry (
    correction_id bigint not null references usage_correction,
    -- From 1, as they were sent.
    position integer not null check (position > 0),
    -- What is corrected: a row of usage_rollup.
    quarter timestamptz not null check (extract(epoch from quarter)::bigint % 900 = 0),
    meter text not null,
    model text not null,
    -- Added to it; negative to take away.
    tokens bigint not null,
    requests bigint not null,
    check (tokens <> 0 or requests <> 0),
    primary key (correction_id, position)
);

create function never_changes() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are never changed or deleted', tg_table_name;
end $$;
create trigger never_changes before update or delete on usage_correction
    for each row execute function never_changes();
create trigger never_changes before update or delete on usage_correction_entry
    for each row execute function never_changes();

-- What is taken off an invoice. An invoice itself is never changed.

-- Numbers have no gaps, as those of invoices.
create table credit_note_number (
    only_row boolean primary key default true check (only_row),
    last bigint not null check (last >= 0)
);
insert into credit_note_number (last) values (0);

create table credit_note (
    id bigint generated always as identity primary key,
    number text not null unique,
    invoice_id bigint not null references invoice,
    -- In minor units of the invoice's currency. Negative where it voids an invoice that was negative.
    amount_minor bigint not null check (amount_minor <> 0),
    reason text not null,
    created_at timestamptz not null default now()
);
create index credit_note_invoice_id on credit_note (invoice_id);
create trigger never_changes before update or delete on credit_note
    for each row execute function never_changes();

-- The caller holds the invoice's row. Others wait for their numbers until it ends.
create function add_credit_note(invoice_id bigint, amount_minor bigint, reason text) returns bigint
    language sql as $$
    with number as (update credit_note_number set last = last + 1 returning last)
    insert into credit_note (number, invoice_id, amount_minor, reason)
    select 'CN-' || case when last < 1000000 then lpad(last::text, 6, '0') else last::text end,
           $1, $2, $3 from number
    returning id
$$;

-- Why the invoice is void, where somebody said so.
alter table invoice add column void_reason text;

-- Whoever voids an invoice, what is left of it is credited in the same transaction.
create function invoice_void() returns trigger language plpgsql as $$
declare left_minor bigint;
begin
    select new.total_minor - coalesce(sum(amount_minor), 0) into left_minor
    from credit_note where invoice_id = new.id;
    if left_minor <> 0 then
        perform add_credit_note(new.id, left_minor, coalesce(new.void_reason, 'The invoice is void'));
    end if;
    return null;
end $$;
create trigger invoice_void after update of state on invoice
    for each row when (new.state = 'void' and old.state <> 'void')
    execute function invoice_void();

-- An invoice, once made, only gets a number and moves on: final, sent, paid, or void unless it is paid.
create function invoice_moves_on() returns trigger language plpgsql as $$
declare
    states constant text[] := array['grace', 'final', 'sent', 'paid', 'void'];
begin
    if (new.id, new.tenant_id, new.currency, new.period_start, new.period_end, new.time_zone,
        new.total_minor, new.created_at, new.seller, new.buyer, new.note, new.due_at)
       is distinct from
       (old.id, old.tenant_id, old.currency, old.period_start, old.period_end, old.time_zone,
        old.total_minor, old.created_at, old.seller, old.buyer, old.note, old.due_at)
       or (old.number is not null and new.number is distinct from old.number) then
        raise exception 'the invoice with id % is made and is never changed', old.id;
    end if;
    if array_position(states, new.state) < array_position(states, old.state)
       or (old.state = 'paid' and new.state = 'void') then
        raise exception 'the invoice with id % is % and can''t become %', old.id, old.state, new.state;
    end if;
    return new;
end $$;
create trigger invoice_moves_on before update on invoice
    for each row execute function invoice_moves_on();
create trigger never_changes before delete on invoice
    for each row execute function never_changes();
create trigger never_changes before update or delete on invoice_terms
    for each row execute function never_changes();
create trigger never_changes before update or delete on invoice_quantity
    for each row execute function never_changes();
create trigger never_changes before update or delete on invoice_line
    for each row execute function never_changes();

-- A tenant that has left. Its last period with fees ends then; what it used later, or what comes late, is
-- billed without them.
alter table tenant
    add column closed_at timestamptz check (extract(epoch from closed_at)::bigint % 900 = 0),
    drop constraint tenant_state_check,
    add constraint tenant_state_check check (state in ('active', 'suspended', 'closed')),
    add check ((state = 'closed') = (closed_at is not null));
