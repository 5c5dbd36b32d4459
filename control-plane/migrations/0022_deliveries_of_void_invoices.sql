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
