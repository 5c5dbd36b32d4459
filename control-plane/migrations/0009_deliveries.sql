-- Invoices at billing providers: who sends a tenant's, how far each is, and what the provider said.

-- Names this deployment at providers, so that two that share an account there don't take each
-- other's invoices for their own. A database that is restored keeps it.
create table deployment (
    only_row boolean primary key default true check (only_row),
    name text not null
);
insert into deployment (name) values (left(replace(gen_random_uuid()::text, '-', ''), 12));

-- Who sends the tenant's invoices from now on; with `manual` nobody does.
alter table tenant add column provider text not null default 'manual'
    check (provider in ('manual', 'stripe', 'chargebee'));

-- A tenant as a customer of a provider. One worker at a time sends a tenant's invoices, oldest first:
-- the one that has the row's claim, until `claimed_until`.
create table provider_customer (
    tenant_id text not null references tenant,
    provider text not null check (provider in ('stripe', 'chargebee')),
    -- What the provider is told when it makes the customer; the tenant's name where it is null.
    name text,
    email text,
    -- The provider's id of the customer, once it is known.
    customer_id text,
    claim bigint not null default 0,
    claimed_until timestamptz not null default '-infinity',
    primary key (tenant_id, provider)
);

-- One invoice on its way to the provider that its tenant had when it became final.
create table delivery (
    invoice_id bigint primary key references invoice,
    tenant_id text not null,
    provider text not null,
    state text not null default 'open' check (state in ('open', 'done', 'failed')),
    -- What is to be done next, or was done last.
    step text not null default 'customer'
        check (step in ('customer', 'create', 'lines', 'compare', 'finalize', 'send', 'reject', 'void')),
    -- Whether the step was begun before, so that it may have been carried out.
    begun boolean not null default false,
    -- Part of the idempotency keys of the step: a new one, where the old key can only repeat an error
    -- or may have been forgotten. `key_used_at` is when the present one was used first.
    key_generation integer not null default 0,
    key_used_at timestamptz,
    -- Of this step.
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    last_error text,
    -- The provider's id and number of the invoice, once they are known.
    provider_invoice_id text,
    provider_number text,
    -- What the provider said of the payment, and when what was said of an unpaid one had happened.
    payment text not null default 'open' check (payment in ('open', 'failed', 'overdue', 'paid', 'void')),
    payment_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    foreign key (tenant_id, provider) references provider_customer
);
create index delivery_due on delivery (next_attempt_at) where state = 'open';
create index delivery_tenant on delivery (tenant_id, provider) where state = 'open';
create index delivery_failed on delivery (invoice_id) where state = 'failed';

-- An invoice is queued in the transaction that makes it final, whoever does that; and one that
-- becomes void must be voided at the provider too.
create function queue_delivery() returns trigger language plpgsql as $$
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
        set state = 'open', step = 'void', begun = false, key_generation = key_generation + 1,
            key_used_at = null, attempts = 0, next_attempt_at = now(), last_error = null,
            updated_at = now()
        where invoice_id = new.id and payment <> 'void' and step <> 'void';
    end if;
    return null;
end $$;

create trigger invoice_made after insert on invoice
    for each row when (new.state = 'final') execute function queue_delivery();
create trigger invoice_changed after update of state on invoice
    for each row when (new.state is distinct from old.state and new.state in ('final', 'void'))
    execute function queue_delivery();

-- Webhook calls that were carried out, so that a repeat changes nothing.
create table webhook_event (
    provider text not null,
    event_id text not null,
    received_at timestamptz not null default now(),
    primary key (provider, event_id)
);
create index webhook_event_received_at on webhook_event (received_at);
