//! Credits as invoices use them. Whoever makes an invoice holds the tenant's row, and all that was used
//! is used by invoices of its earlier periods: so nothing is used twice.

use std::collections::HashMap;

use sqlx::{PgConnection, Type};
use weir_domain::{
    currency::Currency,
    invoice::{
        Invoice,
        grants::{Grant, GrantKind},
    },
    money::Money,
};

use super::{Error, draft::Draft};

/// [`GrantKind`] as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum StoredKind {
    Promotional,
    Prepaid,
}

impl From<GrantKind> for StoredKind {
    fn from(kind: GrantKind) -> Self {
        match kind {
            GrantKind::Promotional => Self::Promotional,
            GrantKind::Prepaid => Self::Prepaid,
        }
    }
}

impl From<StoredKind> for GrantKind {
    fn from(kind: StoredKind) -> Self {
        match kind {
            StoredKind::Promotional => Self::Promotional,
            StoredKind::Prepaid => Self::Prepaid,
        }
    }
}

/// The credits of these tenants that are not used up, by tenant.
pub(super) async fn left(
    db: &mut PgConnection,
    tenants: &[&str],
) -> Result<HashMap<String, Vec<Grant>>, Error> {
    let rows = sqlx::query!(
        r#"select credit.id, tenant_id, kind as "kind: StoredKind", description, currency, expires_at,
                  left_minor as "left_minor!"
           from credit join credit_left using (id)
           where tenant_id = any($1) and left_minor > 0"#,
        tenants as _,
    )
    .fetch_all(db)
    .await?;
    let mut left = HashMap::<String, Vec<Grant>>::new();
    for row in rows {
        let currency = Currency::new(&row.currency).map_err(Error::stored)?;
        left.entry(row.tenant_id).or_default().push(Grant {
            id: row.id,
            kind: row.kind.into(),
            description: row.description,
            expires_at: row.expires_at.map(|expires| expires.to_jiff()),
            left: Money::new(row.left_minor, currency),
        });
    }
    Ok(left)
}

/// Drops those drafts that use more of a credit than is left of it at this moment: it was taken back since
/// they were drawn up. The caller holds the tenants' rows.
pub(super) async fn drop_overdrawn(
    tx: &mut PgConnection,
    drafts: &mut Vec<Draft>,
) -> Result<(), Error> {
    let used: Vec<i64> =
        drafts.iter().flat_map(|draft| draft.invoice.paid_from().map(|(grant, _)| grant)).collect();
    if used.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"select id as "id!", left_minor as "left_minor!" from credit_left where id = any($1)"#,
        &used,
    )
    .fetch_all(tx)
    .await?;
    let left: HashMap<i64, i64> = rows.into_iter().map(|row| (row.id, row.left_minor)).collect();
    drafts.retain(|draft| {
        let mut used = draft.invoice.paid_from();
        used.all(|(grant, used)| left.get(&grant).is_some_and(|left| used.minor() <= *left))
    });
    Ok(())
}

/// Notes what these invoices, with their ids, have used.
pub(super) async fn use_up(
    tx: &mut PgConnection,
    invoices: impl Iterator<Item = (i64, &Invoice)>,
) -> Result<(), Error> {
    let (mut ids, mut grants, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
    for (id, invoice) in invoices {
        for (grant, used) in invoice.paid_from() {
            ids.push(id);
            grants.push(grant);
            amounts.push(used.minor());
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into credit_use (invoice_id, credit_id, amount_minor)
         select * from unnest($1::bigint[], $2::bigint[], $3::bigint[])",
        &ids,
        &grants,
        &amounts,
    )
    .execute(tx)
    .await?;
    Ok(())
}
