-- Deliveries of invoices that are void.

-- As before, but what is void is void at the provider as a whole: the credit note of what was left of it
-- is for our books, and is not sent.
create or replace function queue_credit_note() returns trigger language plpgsql as $$
begin
    if exists (select from invoice where id = new.invoice_id and state = 'void') then
        return null;
    end if;
    -- Whoever ends the delivery at this moment looks for credit notes under the same lock.
    perform from delivery where invoice_id = new.invoice_id for update;
    update delivery
    set state = 'open', step = 'credit', begun = false, key_generation = key_generation + 1,
        key_used_at = null, attempts = 0, next_attempt_at = now(), last_error = null, updated_at = now()
    where invoice_id = new.invoice_id and state = 'done' and step <> 'void';
    return null;
end $$;

-- Those that stopped over such a credit note: the provider had voided the invoice itself.
update delivery
set state = 'done', step = 'void', begun = false, attempts = 0, last_error = null, updated_at = now()
where state <> 'done' and step = 'credit' and payment = 'void'
  and exists (select from invoice where id = delivery.invoice_id and state = 'void');

-- What names an invoice at its provider. Ids are given anew after a database was restored from a backup,
-- periods are not: so it is made of the tenant, the start of the period, and how often the period had been
-- billed before that. What is there already keeps the name that it has.
alter table delivery add column reference text;
update delivery set reference = deployment.name || '-' || invoice_id from deployment;
alter table delivery
    alter column reference set not null,
    add constraint delivery_reference_key unique (reference);
create index invoice_rebilled on invoice (tenant_id, period_start) where rebilled;

create function name_delivery() returns trigger language plpgsql as $$
begin
    -- Ids of tenants are longer than some providers take.
    select deployment.name
           || '-' || left(encode(sha256(convert_to(invoice.tenant_id, 'UTF8')), 'hex'), 16)
           || '-' || extract(epoch from invoice.period_start)::bigint
           || '-' || (select count(*) from invoice earlier
                      where earlier.tenant_id = invoice.tenant_id
                        and earlier.period_start = invoice.period_start
                        and earlier.rebilled and earlier.id < invoice.id)
    into new.reference
    from invoice cross join deployment where invoice.id = new.invoice_id;
    return new;
end $$;
create trigger delivery_named before insert on delivery
    for each row execute function name_delivery();

-- As before, but the step that voids knows whether a call may be under way that makes the invoice.
create or replace function queue_delivery() returns trigger language plpgsql as $$
begin
    if new.state = 'final' then
        insert into provider_customer (tenant_id, provider)
        select tenant.id, tenant.provider from tenant
        where tenant.id = new.tenant_id and tenant.provider <> 'manual'
        on conflict do nothing;
        insert into delivery (invoice_id, tenant_id, provider)
        select new.id, tenant.id, tenant.provider from tenant
        where tenant.id = new.tenant_id and tenant.provider <> 'manual'
        on conflict do nothing;
    elsif new.state = 'void' then
        update delivery
        set state = 'open', step = 'void', begun = begun and step in ('customer', 'create'),
            key_generation = key_generation + 1, key_used_at = null, attempts = 0,
            next_attempt_at = now(), last_error = null, updated_at = now()
        where invoice_id = new.id and payment <> 'void' and step <> 'void';
    end if;
    return null;
end $$;
