//! The ledger, its sums, and what invoices have billed of them.

use sqlx::{PgConnection, types::Json};

use super::{
    Error, Scope,
    report::{Check, Difference, Found, Section},
};

/// Usage records and corrections, and the sums per quarter hour that are kept of them.
pub(super) async fn ledger(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query!(
        r#"with known as (
             select tenant_id, date_bin('15 minutes', minute, 'epoch') as quarter, meter, model,
                    tokens, requests, 0::bigint as summed_tokens, 0::bigint as summed_requests
             from usage_record
             where ($1::text is null or tenant_id = $1)
               and ($2::timestamptz is null or minute >= $2) and ($3::timestamptz is null or minute < $3)
             union all
             select tenant_id, quarter, meter, model, tokens, requests, 0, 0
             from usage_correction_entry join usage_correction on id = correction_id
             where ($1::text is null or tenant_id = $1)
               and ($2::timestamptz is null or quarter >= $2) and ($3::timestamptz is null or quarter < $3)
             union all
             select tenant_id, quarter, meter, model, 0, 0, tokens, requests
             from usage_rollup
             where ($1::text is null or tenant_id = $1)
               and ($2::timestamptz is null or quarter >= $2) and ($3::timestamptz is null or quarter < $3)
           ), sums as (
             select tenant_id, quarter, meter, model, sum(tokens) as tokens, sum(requests) as requests,
                    sum(summed_tokens) as summed_tokens, sum(summed_requests) as summed_requests
             from known group by tenant_id, quarter, meter, model
           ), differing as (
             select tenant_id, quarter, meter, model, unit, first, second
             from sums cross join lateral (values
               ('tokens', tokens, summed_tokens), ('requests', requests, summed_requests)
             ) as unit (unit, first, second)
             where first <> second
           )
           select (select count(*) from sums) as "compared!", (select count(*) from differing) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select tenant_id as tenant, quarter as from_at, quarter + interval '15 minutes' as to_at,
                            format('%s of meter "%s", model "%s"', unit, meter, model) as what,
                            first::text, second::text
                     from differing order by quarter, tenant_id, meter, model, unit limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    Ok(Section {
        check: Check::Ledger,
        first: "usage records with corrections",
        second: "sums per quarter hour",
        compared: row.compared,
        differing: row.differing,
        differences: differences(row.found)?,
        awaited: 0,
        awaited_differences: Vec::new(),
    })
}

/// The sums of closed periods, and what all invoices together have billed of them. What the tenant's
/// next invoice will bill is awaited, to the token: what is noted in `usage_late`, and what came unnoted to
/// quarter hours that were not over for twenty minutes at the read point, beyond `invoice_quarter`. Notes
/// without amounts, of earlier versions, say only that something is awaited.
pub(super) async fn billed(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query!(
        r#"with closed as (
             select id, number, tenant_id, state, period_start, period_end,
                    -- Of invoices without a read point, all that came later is noted.
                    case when usage_read_at > '-infinity' then usage_read_at - interval '20 minutes'
                         else 'infinity' end as open_from
             from invoice
             where not rebilled and ($1::text is null or tenant_id = $1)
               and ($2::timestamptz is null or period_end > $2)
               and ($3::timestamptz is null or period_start < $3)
           ), stretch as (
             select closed.id as invoice_id, tenant_id, open_from, terms.starts_at,
                    coalesce(lead(terms.starts_at) over (partition by closed.id order by terms.starts_at),
                             period_end) as ends_at
             from closed join invoice_terms terms on terms.invoice_id = closed.id
           ), known as (
             select invoice_id, starts_at, meter, model, tokens, requests,
                    0::numeric as billed_tokens, 0::numeric as billed_requests,
                    case when rollup.quarter >= open_from then tokens else 0 end as due_tokens,
                    case when rollup.quarter >= open_from then requests else 0 end as due_requests
             from stretch join usage_rollup rollup
               on rollup.tenant_id = stretch.tenant_id
              and rollup.quarter >= stretch.starts_at and rollup.quarter < stretch.ends_at
             union all
             select period_invoice_id, starts_at, meter, model, 0, 0, quantity.tokens, quantity.requests, 0, 0
             from closed join invoice_quantity quantity on period_invoice_id = closed.id
             join invoice billing on billing.id = quantity.invoice_id and not billing.rebilled
             union all
             select stretch.invoice_id, starts_at, meter, model, 0, 0, 0, 0, -kept.tokens, -kept.requests
             from stretch join invoice_quarter kept on kept.period_invoice_id = stretch.invoice_id
              and kept.quarter >= starts_at and kept.quarter < ends_at and kept.quarter >= open_from
             join invoice billing on billing.id = kept.invoice_id and not billing.rebilled
             union all
             select stretch.invoice_id, starts_at, meter, model, 0, 0, 0, 0, note.tokens, note.requests
             from stretch join usage_late note on note.tenant_id = stretch.tenant_id
              and note.quarter >= starts_at and note.quarter < ends_at and note.quarter < open_from
             where note.meter is not null
           ), sums as (
             select invoice_id, starts_at, meter, model, sum(tokens) as tokens, sum(requests) as requests,
                    sum(billed_tokens) as billed_tokens, sum(billed_requests) as billed_requests,
                    sum(due_tokens) as due_tokens, sum(due_requests) as due_requests
             from known group by invoice_id, starts_at, meter, model
           ), differing as (
             select invoice_id, starts_at, meter, model, unit, first, second, due
             from sums cross join lateral (values
               ('tokens', tokens, billed_tokens, due_tokens),
               ('requests', requests, billed_requests, due_requests)
             ) as unit (unit, first, second, due)
             where first <> second or due <> 0
           ), judged as (
             select differing.*, closed.*,
                    closed.state = 'grace'
                    or first - second = due
                    or exists (select from usage_late note where note.tenant_id = closed.tenant_id
                                 and note.quarter >= period_start and note.quarter < period_end
                                 and note.meter is null) as is_awaited
             from differing join closed on closed.id = differing.invoice_id
           ), told as (
             select is_awaited, row_number() over (
                      partition by is_awaited order by period_start, tenant_id, starts_at, meter, model, unit
                    ) as place,
                    jsonb_build_object(
                      'tenant', tenant_id, 'invoice', invoice_id, 'number', number,
                      'from_at', period_start, 'to_at', period_end,
                      'what', format('%s of meter "%s", model "%s"', unit, meter, model)
                              || case when is_awaited or due = 0 then ''
                                      else format(' (the next invoice bills %s)', due) end,
                      'first', first::text, 'second', second::text) as one
             from judged
           )
           select (select count(*) from sums) as "compared!",
                  (select count(*) from told where not is_awaited) as "differing!",
                  (select count(*) from told where is_awaited) as "awaited!",
                  (select coalesce(jsonb_agg(one order by place), '[]') from told
                   where not is_awaited and place <= $4) as "found!: Json<Vec<Found>>",
                  (select coalesce(jsonb_agg(one order by place), '[]') from told
                   where is_awaited and place <= $4) as "found_awaited!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    Ok(Section {
        check: Check::Billed,
        first: "sums per quarter hour",
        second: "billed by invoices",
        compared: row.compared,
        differing: row.differing,
        differences: differences(row.found)?,
        awaited: row.awaited,
        awaited_differences: differences(row.found_awaited)?,
    })
}

pub(super) fn differences(Json(found): Json<Vec<Found>>) -> Result<Vec<Difference>, Error> {
    found.into_iter().map(Difference::try_from).collect()
}
