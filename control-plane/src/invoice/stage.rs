//! What a run is about to sum up, written down in Postgres, so that the usage of very many tenants is
//! summed up in one pass.

use futures_util::{Stream, StreamExt};
use sqlx::PgConnection;

use super::{
    Error,
    draft::Input,
    period::to_sql,
    usage::{QuantityRow, Stretches, SumRow},
};

/// The periods of a round.
pub(super) struct Stage<'a> {
    run: i64,
    stretches: Stretches<'a>,
    first: Option<jiff_sqlx::Timestamp>,
    last: Option<jiff_sqlx::Timestamp>,
}

impl<'a> Stage<'a> {
    /// Not in a transaction: workers of Postgres must see it.
    pub(super) async fn write(db: &mut PgConnection, inputs: &'a [Input]) -> Result<Self, Error> {
        let stretches = Stretches::of(inputs);
        let run = sqlx::query_scalar!(r#"select nextval('invoice_run_id') as "run!""#)
            .fetch_one(&mut *db)
            .await?;
        sqlx::query!(
            "insert into invoice_run_stretch (run, place, tenant_id, starts_at, ends_at)
             select $1, * from unnest($2::integer[], $3::text[], $4::timestamptz[], $5::timestamptz[])",
            run,
            &stretches.places,
            &stretches.tenants as _,
            &stretches.starts as _,
            &stretches.ends as _,
        )
        .execute(&mut *db)
        .await?;
        sqlx::query!("analyze invoice_run_stretch").execute(db).await?;
        let periods = inputs.iter().map(|input| input.due.period);
        Ok(Self {
            run,
            first: periods.clone().map(|period| period.start()).min().map(to_sql),
            last: periods.map(|period| period.end()).max().map(to_sql),
            stretches,
        })
    }

    /// The usage of the periods as it is known now, summed per terms, each with the place of its input:
    /// in the order of inputs, terms, meter and model.
    pub(super) fn rolled_up<'b>(
        &'b self,
        db: &'b mut PgConnection,
    ) -> impl Stream<Item = Result<(usize, QuantityRow), Error>> + use<'a, 'b> {
        // The outer bounds say nothing new: they let Postgres read only what was written in that time.
        sqlx::query_as!(
            SumRow,
            r#"select place, meter, model, sum(tokens) as "tokens!", sum(requests) as "requests!"
               from invoice_run_stretch join usage_rollup using (tenant_id)
               where run = $1 and quarter >= starts_at and quarter < ends_at
                 and quarter >= $2 and quarter < $3
               group by place, meter, model order by place, meter, model"#,
            self.run,
            self.first as _,
            self.last as _,
        )
        .fetch(db)
        .map(|row| self.stretches.quantity(row?))
    }

    /// Forgets it, and what killed runs have left.
    pub(super) async fn clear(self, db: &mut PgConnection) -> Result<(), Error> {
        sqlx::query!(
            "delete from invoice_run_stretch where run = $1 or staged_at < now() - interval '1 day'",
            self.run,
        )
        .execute(db)
        .await?;
        Ok(())
    }
}
