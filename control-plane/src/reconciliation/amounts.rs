//! Invoices, and what they consist of.

use sqlx::{PgConnection, types::Json};

use super::{
    Error, Scope,
    report::{Check, Found, Section},
    usage::differences,
};

/// What a statement brings that looks for differences and awaits none.
pub(super) struct Row {
    pub(super) compared: i64,
    pub(super) differing: i64,
    pub(super) found: Json<Vec<Found>>,
}

impl Row {
    pub(super) fn section(
        self,
        check: Check,
        first: &'static str,
        second: &'static str,
    ) -> Result<Section, Error> {
        let Self { compared, differing, found } = self;
        Ok(Section {
            check,
            first,
            second,
            compared,
            differing,
            differences: differences(found)?,
            awaited: 0,
            awaited_differences: Vec::new(),
        })
    }
}

/// The lines of an invoice add up to its total.
pub(super) async fn lines(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"with sums as (
             select invoice.id, number, tenant_id, period_start, period_end, currency, total_minor,
                    coalesce(sum(amount_minor), 0) as lines_minor
             from invoice left join invoice_line on invoice_id = invoice.id
             where ($1::text is null or tenant_id = $1)
               and ($2::timestamptz is null or period_end > $2)
               and ($3::timestamptz is null or period_start < $3)
             group by invoice.id
           ), differing as (select * from sums where lines_minor <> total_minor)
           select (select count(*) from sums) as "compared!", (select count(*) from differing) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select tenant_id as tenant, id as invoice, number, period_start as from_at,
                            period_end as to_at, 'total' as what, currency,
                            lines_minor::text as first, total_minor::text as second
                     from differing order by period_start, id limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    row.section(Check::Lines, "sum of the lines", "the invoice's total")
}

/// What lines say of credits is what the credits' account says, and no credit is used beyond its amount.
pub(super) async fn credits(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"with known as (
             select invoice_id, (rule ->> 'credit')::bigint as credit_id, -amount_minor as by_line,
                    0::bigint as by_credit
             from invoice_line where rule ->> 'kind' = 'credit'
             union all
             select invoice_id, credit_id, 0, amount_minor from credit_use
           ), sums as (
             select tenant_id, invoice.id as invoice, number, period_start as from_at, period_end as to_at,
                    format('taken of the credit with id %s', credit_id) as what, currency,
                    sum(by_line) as first, sum(by_credit) as second
             from known join invoice on invoice.id = invoice_id
             where ($1::text is null or tenant_id = $1)
               and ($2::timestamptz is null or period_end > $2)
               and ($3::timestamptz is null or period_start < $3)
             group by invoice.id, credit_id
             union all
             select tenant_id, null, null, created_at, now(),
                    format('left of the credit "%s"', name), currency, 0, left_minor
             from credit join credit_left using (id)
             where ($1::text is null or tenant_id = $1)
           ), differing as (
             select * from sums where case when invoice is null then second < 0 else first <> second end
           )
           select (select count(*) from sums) as "compared!", (select count(*) from differing) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select tenant_id as tenant, invoice, number, from_at, to_at, what, currency,
                            first::text, second::text
                     from differing order by from_at, tenant_id, invoice, what limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    row.section(Check::Credits, "lines of invoices", "account of the credits")
}

/// Credit notes take off all of an invoice that is void, and of others nothing beyond the total.
pub(super) async fn credit_notes(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"with sums as (
             select invoice.id, invoice.number, tenant_id, state, period_start, period_end, currency,
                    total_minor, coalesce(sum(amount_minor), 0) as credited_minor
             from invoice left join credit_note on invoice_id = invoice.id
             where ($1::text is null or tenant_id = $1)
               and ($2::timestamptz is null or period_end > $2)
               and ($3::timestamptz is null or period_start < $3)
             group by invoice.id
           ), differing as (
             select * from sums
             where case when state = 'void' then credited_minor <> total_minor
                        else credited_minor not between 0 and greatest(total_minor, 0) end
           )
           select (select count(*) from sums) as "compared!", (select count(*) from differing) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select tenant_id as tenant, id as invoice, number, period_start as from_at,
                            period_end as to_at,
                            case when state = 'void' then 'credited of an invoice that is void'
                                 else 'credited, at most the total' end as what,
                            currency, credited_minor::text as first, total_minor::text as second
                     from differing order by period_start, id limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    row.section(Check::CreditNotes, "credit notes", "the invoice's total")
}

/// Billing periods follow each other, so that no usage lies between two invoices or in both.
pub(super) async fn periods(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"with sums as (
             select id, number, tenant_id, period_start, period_end,
                    lead(period_start) over (partition by tenant_id order by period_start) as next_start
             from invoice
             where not rebilled and ($1::text is null or tenant_id = $1)
           ), counted as (
             select * from sums
             where ($2::timestamptz is null or period_end > $2)
               and ($3::timestamptz is null or period_start < $3)
           ), differing as (select * from counted where next_start <> period_end)
           select (select count(*) from counted) as "compared!",
                  (select count(*) from differing) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select tenant_id as tenant, id as invoice, number, period_start as from_at,
                            period_end as to_at, 'the next period' as what,
                            to_char(period_end at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as first,
                            to_char(next_start at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as second
                     from differing order by period_start, id limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    row.section(Check::Periods, "where the period ends", "where the next invoice's starts")
}
