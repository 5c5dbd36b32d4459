-- Lines that are neither a price nor an adjustment: discounts and minimums. And which models a price
-- is for.

alter table invoice_line
    -- A pattern such as gpt-4*; null where the price is for all models.
    add column model text,
    -- What a discount or a minimum was computed from.
    add column rule jsonb,
    drop constraint invoice_line_check,
    add constraint invoice_line_subject check (num_nonnulls(charge, rule, adjusts_invoice_id) = 1),
    add check (model is null or meter is not null);
