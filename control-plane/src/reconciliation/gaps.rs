//! What should be here and is not, and usage that no invoice will ever bill.

use sqlx::{PgConnection, types::Json};

use super::{
    Error, Scope,
    amounts::Row,
    report::{Check, Found, Section},
};

/// Numbers of invoices and credit notes follow each other, up to the last one that was given. They are
/// those of all tenants, so for one tenant nothing is compared.
pub(super) async fn numbers(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"with known as (
             select 'INV-' as series, substr(number, 5)::bigint as place, created_at
             from invoice where number is not null
             union all
             select 'CN-', substr(number, 4)::bigint, created_at from credit_note
             union all
             select series, 0, 'epoch' from (values ('INV-'), ('CN-')) as begin (series)
             union all
             -- The one to be given next.
             select 'INV-', last + 1, now() from invoice_number
             union all
             select 'CN-', last + 1, now() from credit_note_number
           ), steps as (
             select series, place, created_at,
                    lead(place) over by_place as next, lead(created_at) over by_place as next_at
             from known where $1::text is null
             window by_place as (partition by series order by place)
           ), counted as (
             select * from steps
             where next is not null
               and ($2::timestamptz is null or next_at > $2)
               and ($3::timestamptz is null or created_at < $3)
           ), differing as (select * from counted where next <> place + 1)
           select (select count(*) from counted where place > 0) as "compared!",
                  (select count(*) from differing) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select created_at as from_at, next_at as to_at, 'the number after ' || shown[1] as what,
                            shown[2] as first, shown[3] as second
                     from differing cross join lateral (
                       select array_agg(series || lpad(number::text, greatest(6, length(number::text)), '0')
                                        order by position) as shown
                       from unnest(array[place, place + 1, next]) with ordinality as all_three (number, position)
                     ) text
                     order by series, place limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    row.section(Check::Numbers, "numbers that were given", "invoices and credit notes")
}

/// Batches of usage that could not be stored. They are put aside, and nobody is billed for them.
pub(super) async fn quarantined(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"with counted as (
             select * from usage_quarantine
             where $1::text is null
               and ($2::timestamptz is null or received_at >= $2)
               and ($3::timestamptz is null or received_at < $3)
           )
           select (select count(*) from counted) as "compared!", (select count(*) from counted) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select received_at as from_at, received_at as to_at,
                            format('batch %s of worker "%s" of gateway "%s"', sequence, worker, gateway) as what,
                            'sent' as first, 'put aside: ' || reason as second
                     from counted order by received_at, gateway, worker, sequence limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    row.section(Check::Quarantined, "usage batches that are not in the ledger", "the ledger")
}

/// Usage before the start of a tenant's first billing period, which no period has.
pub(super) async fn before_first(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"with begun as (
             select id as tenant_id,
                    coalesce((select min(period_start) from invoice where tenant_id = tenant.id and not rebilled),
                             date_bin('15 minutes', created_at, 'epoch')) as first_start
             from tenant where $1::text is null or id = $1
           ), sums as (
             select tenant_id, meter, model, min(quarter) as from_at,
                    max(quarter) + interval '15 minutes' as to_at,
                    sum(tokens) as tokens, sum(requests) as requests
             from begun join usage_rollup using (tenant_id)
             where quarter < first_start
               and ($2::timestamptz is null or quarter >= $2) and ($3::timestamptz is null or quarter < $3)
             group by tenant_id, meter, model
           ), differing as (
             select tenant_id, from_at, to_at, meter, model, unit, used
             from sums cross join lateral (values
               ('tokens', tokens), ('requests', requests)
             ) as unit (unit, used)
             where used <> 0
           )
           select (select count(*) from begun) as "compared!", (select count(*) from differing) as "differing!",
                  (select coalesce(jsonb_agg(to_jsonb(one)), '[]') from (
                     select tenant_id as tenant, from_at, to_at,
                            format('%s of meter "%s", model "%s", before the first billing period',
                                   unit, meter, model) as what,
                            used::text as first, '0' as second
                     from differing order by from_at, tenant_id, meter, model, unit limit $4
                   ) one) as "found!: Json<Vec<Found>>""#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        scope.limit,
    )
    .fetch_one(db)
    .await?;
    row.section(Check::BeforeFirst, "sums per quarter hour", "usage that can be billed")
}
