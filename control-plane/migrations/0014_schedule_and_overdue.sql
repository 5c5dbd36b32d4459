-- When invoices are made by themselves, and which of them are overdue.

-- All billing periods that ended by `done_until` were gone through by a run of the scheduler; null before
-- the first one. It saves replicas from doing it again, and nothing else depends on it: a period that has
-- its invoice gets no other one, whoever runs how often.
create table invoice_schedule (
    only_row boolean primary key default true check (only_row),
    done_until timestamptz
);
insert into invoice_schedule default values;

-- The state of an invoice as it is shown. Overdue is not stored: it follows from the time and what is left
-- to be paid, so that nobody must come by when the time has come.
create function shown_invoice_state(state text, due_at timestamptz, left_minor bigint) returns text
    language sql stable
    return case when state in ('final', 'sent') and due_at <= now() and left_minor > 0
                then 'overdue' else state end;
