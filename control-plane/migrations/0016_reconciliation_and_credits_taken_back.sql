-- Finds the delivery of an invoice that a provider lists.
create index delivery_provider_invoice on delivery (provider, provider_invoice_id);

-- Credits that are taken back, as far as no invoice has used them. Rows are only added: what comes back
-- later with an invoice that is void is taken back by another one.
create table credit_reversal (
    id bigint generated always as identity primary key,
    credit_id bigint not null references credit,
    amount_minor bigint not null check (amount_minor > 0),
    reason text not null,
    created_at timestamptz not null default now()
);
create index credit_reversal_credit_id on credit_reversal (credit_id);

create trigger never_changes before update or delete on credit
    for each row execute function never_changes();
create trigger never_changes before update or delete on credit_use
    for each row execute function never_changes();
create trigger never_changes before update or delete on credit_reversal
    for each row execute function never_changes();

-- How much of a credit is left.
create or replace view credit_left as
select credit.id, amount_minor - coalesce((
         select sum(credit_use.amount_minor) from credit_use
         join invoice on invoice.id = credit_use.invoice_id and invoice.state <> 'void'
         where credit_use.credit_id = credit.id
       ), 0)::bigint - coalesce((
         select sum(credit_reversal.amount_minor) from credit_reversal
         where credit_reversal.credit_id = credit.id
       ), 0)::bigint as left_minor
from credit;

-- Who makes an invoice may have read the credits before one was taken back. At the commit, when the
-- invoice is there and the tenant's row is held.
create function credit_not_overdrawn() returns trigger language plpgsql as $$
begin
    if (select left_minor < 0 from credit_left where id = new.credit_id) then
        raise exception 'less is left of the credit with id % than an invoice takes; it was taken back meanwhile, so make the invoice again',
            new.credit_id;
    end if;
    return null;
end $$;
create constraint trigger credit_not_overdrawn after insert on credit_use
    deferrable initially deferred for each row execute function credit_not_overdrawn();
