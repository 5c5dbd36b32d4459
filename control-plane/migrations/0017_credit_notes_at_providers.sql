-- Credit notes at billing providers: what is taken off an invoice that is there is taken off there, too.

-- A credit note that the provider of its invoice has.
create table credit_note_delivery (
    credit_note_id bigint primary key references credit_note,
    provider_credit_note_id text not null,
    created_at timestamptz not null default now()
);
create trigger never_changes before update or delete on credit_note_delivery
    for each row execute function never_changes();

-- Those that the provider has yet to get. An invoice that is void is voided there as a whole.
create view credit_note_due as
select note.id, note.invoice_id, note.number, note.amount_minor, note.reason
from credit_note note join invoice on invoice.id = note.invoice_id
where invoice.state <> 'void'
  and not exists (select from credit_note_delivery where credit_note_id = note.id);

alter table delivery
    drop constraint delivery_step_check,
    add constraint delivery_step_check
    check (step in ('customer', 'create', 'lines', 'compare', 'finalize', 'send', 'reject', 'void', 'credit'));

create function queue_credit_note() returns trigger language plpgsql as $$
begin
    -- Whoever ends the delivery at this moment looks for credit notes under the same lock.
    perform from delivery where invoice_id = new.invoice_id for update;
    update delivery
    set state = 'open', step = 'credit', begun = false, key_generation = key_generation + 1,
        key_used_at = null, attempts = 0, next_attempt_at = now(), last_error = null, updated_at = now()
    where invoice_id = new.invoice_id and state = 'done' and step <> 'void';
    return null;
end $$;
create trigger credit_note_made after insert on credit_note
    for each row execute function queue_credit_note();

-- What was credited before goes the same way.
update delivery
set state = 'open', step = 'credit', begun = false, key_generation = key_generation + 1,
    key_used_at = null, attempts = 0, next_attempt_at = now(), updated_at = now()
where state = 'done' and step <> 'void'
  and exists (select from credit_note_due due where due.invoice_id = delivery.invoice_id);
