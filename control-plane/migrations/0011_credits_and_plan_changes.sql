-- Credits of tenants, and changes of plan that wait for the next billing period.

-- What tenants have paid ahead or were given, and the invoices that it has paid. Rows are only added.

create table credit (
    id bigint generated always as identity primary key,
    tenant_id text not null references tenant,
    -- Chosen by who grants it, so that a repeat is known.
    name text not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    kind text not null check (kind in ('promotional', 'prepaid')),
    -- What invoice lines say.
    description text not null,
    currency text not null,
    amount_minor bigint not null check (amount_minor > 0),
    -- Counts for the invoices of periods that end by then.
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    unique (tenant_id, name)
);

-- What an invoice has taken. It comes back with an invoice that is void.
create table credit_use (
    credit_id bigint not null references credit,
    -- Checked at the commit, whichever row is written first.
    invoice_id bigint not null references invoice deferrable initially deferred,
    amount_minor bigint not null check (amount_minor > 0),
    primary key (credit_id, invoice_id)
);
create index credit_use_invoice_id on credit_use (invoice_id);

-- How much of a credit is left.
create view credit_left as
select credit.id, amount_minor - coalesce((
         select sum(credit_use.amount_minor) from credit_use
         join invoice on invoice.id = credit_use.invoice_id and invoice.state <> 'void'
         where credit_use.credit_id = credit.id
       ), 0)::bigint as left_minor
from credit;

-- Plans to which tenants will move. Their terms are written already, in tenant_terms.
create table plan_change (
    tenant_id text primary key references tenant,
    plan_id text not null references plan,
    -- The start of the next billing period.
    starts_at timestamptz not null
);
create index plan_change_plan_id on plan_change (plan_id);
create index plan_change_starts_at on plan_change (starts_at);
