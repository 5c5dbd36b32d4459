-- Void invoices that are billed again.

-- Whether its period is open again, and all that it billed is to be billed anew: then it counts for
-- nothing. Of the others each period has one.
alter table invoice
    add column rebilled boolean not null default false,
    drop constraint invoice_tenant_id_period_start_key;
create unique index invoice_period on invoice (tenant_id, period_start) where not rebilled;

-- As before, and only an invoice that becomes void is billed again.
create or replace function invoice_moves_on() returns trigger language plpgsql as $$
declare
    states constant text[] := array['grace', 'final', 'sent', 'paid', 'void'];
begin
    if (new.id, new.tenant_id, new.currency, new.period_start, new.period_end, new.time_zone,
        new.total_minor, new.created_at, new.seller, new.buyer, new.note, new.due_at,
        new.rebilled and new.state <> 'void')
       is distinct from
       (old.id, old.tenant_id, old.currency, old.period_start, old.period_end, old.time_zone,
        old.total_minor, old.created_at, old.seller, old.buyer, old.note, old.due_at,
        false)
       or (old.number is not null and new.number is distinct from old.number)
       or (old.state = 'void'
           and (new.rebilled, new.void_reason) is distinct from (old.rebilled, old.void_reason)) then
        raise exception 'the invoice with id % is made and is never changed', old.id;
    end if;
    if array_position(states, new.state) < array_position(states, old.state)
       or (old.state = 'paid' and new.state = 'void') then
        raise exception 'the invoice with id % is % and can''t become %', old.id, old.state, new.state;
    end if;
    return new;
end $$;
