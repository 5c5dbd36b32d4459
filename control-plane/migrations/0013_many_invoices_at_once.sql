-- A run makes a thousand invoices in one statement; what happens beside that is done once for all.

-- Who is billed, as it stands on an invoice.
create function invoice_buyer(name text, billing_address text) returns text language sql immutable
    return trim(trailing E'\n' from name || E'\n' || billing_address);

-- For whoever does not say it while writing the invoice.
create or replace function invoice_frame() returns trigger language plpgsql as $$
begin
    select settings.seller, settings.note, new.created_at + make_interval(days => payment_days),
           invoice_buyer(tenant.name, billing_address)
    into new.seller, new.note, new.due_at, new.buyer
    from invoice_settings settings, tenant where tenant.id = new.tenant_id;
    return new;
end $$;
drop trigger invoice_frame on invoice;
create trigger invoice_frame before insert on invoice
    for each row when (new.due_at is null) execute function invoice_frame();

create function queue_deliveries() returns trigger language plpgsql as $$
begin
    with due as materialized (
        select made.id, made.tenant_id, tenant.provider
        from made join tenant on tenant.id = made.tenant_id
        where made.state = 'final' and tenant.provider <> 'manual'
    ), customers as (
        insert into provider_customer (tenant_id, provider) select distinct tenant_id, provider from due
        on conflict do nothing
    )
    insert into delivery (invoice_id, tenant_id, provider) select id, tenant_id, provider from due
    on conflict do nothing;
    return null;
end $$;
drop trigger invoice_made on invoice;
create trigger invoice_made after insert on invoice referencing new table as made
    for each statement execute function queue_deliveries();

-- A run sums usage up without writing down first what it is about to sum up.
drop table invoice_run_stretch;
drop sequence invoice_run_id;
