-- A billing period ends in the time zone that its tenant had at its start.

-- The time zones that tenants had before the one that they have, and until when.
create table former_time_zone (
    tenant_id text not null references tenant,
    until timestamptz not null,
    time_zone text not null,
    primary key (tenant_id, until)
);

-- By the clock at this moment: the transaction may have begun long ago.
create function keep_former_time_zone() returns trigger language plpgsql as $$
begin
    insert into former_time_zone (tenant_id, until, time_zone)
    values (old.id, clock_timestamp(), old.time_zone);
    return null;
end $$;
create trigger tenant_former_time_zone after update of time_zone on tenant
    for each row when (new.time_zone <> old.time_zone) execute function keep_former_time_zone();

-- As far as invoices tell.
insert into former_time_zone (tenant_id, until, time_zone)
select tenant_id, period_end, used
from (
    select tenant_id, period_end, invoice.time_zone as used,
           coalesce(lead(invoice.time_zone) over (partition by tenant_id order by period_start),
                    tenant.time_zone) as next
    from invoice join tenant on tenant.id = tenant_id
    where not rebilled
) billed
where used <> next;
