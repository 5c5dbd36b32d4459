-- What a printed invoice says beside its lines.

-- What stands on every invoice, and when invoices are due. One row.
create table invoice_settings (
    only_row boolean primary key default true check (only_row),
    -- Name, address and tax number of who bills, in lines.
    seller text not null default '',
    -- Such as how to pay, in lines.
    note text not null default '',
    payment_days integer not null default 30 check (payment_days between 0 and 3650)
);
insert into invoice_settings default values;

-- Address and tax number of who is billed, in lines; the name stands above them.
alter table tenant add column billing_address text not null default '';

-- Kept as they were when the invoice was made.
alter table invoice
    add column seller text not null default '',
    add column buyer text not null default '',
    add column note text not null default '',
    add column due_at timestamptz;
update invoice set buyer = tenant.name, due_at = invoice.created_at + interval '30 days'
from tenant where tenant.id = tenant_id;
alter table invoice alter column due_at set not null;

-- Whoever makes an invoice, this stands on it.
create function invoice_frame() returns trigger language plpgsql as $$
begin
    select settings.seller, settings.note, new.created_at + make_interval(days => payment_days),
           trim(trailing E'\n' from tenant.name || E'\n' || billing_address)
    into new.seller, new.note, new.due_at, new.buyer
    from invoice_settings settings, tenant where tenant.id = new.tenant_id;
    return new;
end $$;
create trigger invoice_frame before insert on invoice
    for each row execute function invoice_frame();
