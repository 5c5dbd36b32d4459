//! Credits: what a tenant has paid ahead or was given pays its invoices, once.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, invoices, run, start, tenant_since, use_tokens},
};

/// A tenant in USD since January 2025, at 10.00 a month and 0.01 a token.
async fn tenant(fleet: &Fleet, id: &str) -> Result<()> {
    let plan = json!({ "currency": "USD", "prices": [flat("10.00"), per_unit("0.01")] });
    tenant_since(fleet, id, "2025-01-01T00:00:00Z", plan, "UTC").await
}

async fn grant(fleet: &Fleet, tenant: &str, credit: Value) -> Result<Answer> {
    fleet.admin.post(&format!("/tenants/{tenant}/credits"), &credit).await
}

fn credit(name: &str, kind: &str, amount: &str) -> Value {
    json!({ "name": name, "kind": kind, "currency": "USD", "amount": amount })
}

/// What is left of each of the tenant's credits, oldest first.
async fn left(fleet: &Fleet, tenant: &str) -> Result<Vec<String>> {
    let page = fleet.admin.get(&format!("/tenants/{tenant}/credits")).await?.ok()?;
    let items = page["items"].as_array().context("items")?;
    let left = |credit: &Value| credit["left"].as_str().map(str::to_owned).context("left");
    items.iter().rev().map(left).collect()
}

/// Promotional before prepaid, what expires first before the rest; the total stays at 0, and what is
/// left goes to the next invoice. The preview says the same. A void invoice gives back what it used.
#[tokio::test]
async fn credits_pay_invoices_in_their_order_until_they_are_used_up() -> Result<()> {
    let fleet = start().await?;
    tenant(&fleet, "acme").await?;
    use_tokens(&fleet, "acme", "2025-02-03T00:00:00Z", 500).await?;
    for (name, kind, amount) in [
        ("paid", "prepaid", "15.00"),
        ("trial", "promotional", "4.50"),
        ("sorry", "promotional", "2.00"),
    ] {
        grant(&fleet, "acme", credit(name, kind, amount)).await?.ok()?;
    }
    // As if it had been made when its expiry was to come.
    let sql = "set session_replication_role = replica;
               update credit set expires_at = '2025-02-01T00:00:00Z' where name = 'sorry'";
    fleet.stack.database.query(sql).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    assert_eq!(left(&fleet, "acme").await?, ["11.50", "0.00", "0.00"]);
    run(&fleet, "2025-03-01T00:00:00Z").await?;

    let invoices = invoices(&fleet, "acme").await?;
    assert_eq!(amounts(&invoices[0]), ["10.00", "0.00", "-2.00", "-4.50", "-3.50", "0.00"]);
    let lines = |invoice: &Value, member: &str| -> Vec<Value> {
        let lines = invoice["lines"].as_array().cloned().unwrap_or_default();
        lines.iter().skip(2).map(|line| line[member].clone()).collect()
    };
    assert_eq!(lines(&invoices[0], "kind"), ["credit", "credit", "credit"]);
    let credits = ["promotional", "promotional", "prepaid"].iter().zip([3, 2, 1]);
    let credits: Vec<Value> = credits.map(|(kind, id)| json!({ "id": id, "kind": kind })).collect();
    assert_eq!(lines(&invoices[0], "credit"), credits);
    let names = ["Promotional credit", "Promotional credit", "Prepaid credit"];
    assert_eq!(lines(&invoices[0], "name"), names);
    assert_eq!(amounts(&invoices[1]), ["10.00", "5.00", "-11.50", "3.50"]);
    assert_eq!(left(&fleet, "acme").await?, ["0.00", "0.00", "0.00"]);

    let more = json!({ "name": "more", "kind": "prepaid", "currency": "USD", "amount": "100.00",
                       "description": "Paid by wire", "expires_at": "2999-01-01T00:00:00Z" });
    grant(&fleet, "acme", more).await?.ok()?;
    let draft = fleet.admin.get("/tenants/acme/invoices/preview?invoice=current").await?.ok()?;
    assert_eq!(amounts(&draft), ["10.00", "0.00", "-10.00", "0.00"]);
    assert_eq!(lines(&draft, "name"), ["Paid by wire"]);
    assert_eq!(left(&fleet, "acme").await?[3], "100.00", "a preview uses nothing");

    let sql = format!("update invoice set state = 'void' where id = {}", invoices[1]["id"]);
    fleet.stack.database.query(&sql).await?;
    assert_eq!(left(&fleet, "acme").await?, ["11.50", "0.00", "0.00", "100.00"]);
    Ok(())
}

/// Two runs at once use a credit once.
#[tokio::test]
async fn runs_that_race_use_a_credit_once() -> Result<()> {
    let fleet = start().await?;
    let tenants = ["a", "b", "c", "d"];
    for id in tenants {
        tenant(&fleet, id).await?;
        grant(&fleet, id, credit("start", "prepaid", "25.00")).await?.ok()?;
    }
    let as_of = "2025-05-01T00:00:00Z";
    let (first, second) = tokio::join!(run(&fleet, as_of), run(&fleet, as_of));
    first?;
    second?;
    for id in tenants {
        let invoices = invoices(&fleet, id).await?;
        let totals: Vec<&Value> = invoices.iter().map(|invoice| &invoice["total"]).collect();
        assert_eq!(totals, ["0.00", "0.00", "5.00", "10.00"], "{id}");
        assert_eq!(left(&fleet, id).await?, ["0.00"], "{id}");
    }
    let sql = "select sum(amount_minor), (select -sum(amount_minor) from invoice_line where amount_minor < 0) from credit_use";
    assert_eq!(fleet.stack.database.query(sql).await?.trim(), "10000|10000");
    Ok(())
}

/// A repeated call grants nothing more; mistakes are refused with their field and grant nothing.
#[tokio::test]
async fn a_credit_is_granted_once_and_bad_ones_never() -> Result<()> {
    let fleet = start().await?;
    tenant(&fleet, "acme").await?;
    let start = credit("start", "promotional", "25.00");
    let (first, second) = tokio::try_join!(
        grant(&fleet, "acme", start.clone()),
        grant(&fleet, "acme", start.clone())
    )?;
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
    let other = grant(&fleet, "acme", credit("start", "promotional", "26.00")).await?;
    assert_eq!(other.status, 409);
    assert!(other.body.contains("another credit named"), "{}", other.body);

    for (field, value, says) in [
        ("amount", json!("0"), "more than 0"),
        ("amount", json!("-1"), "-1"),
        ("amount", json!("0.001"), "0.001"),
        ("amount", json!("1e400"), "amount"),
        ("amount", json!(5), "amount"),
        ("currency", json!("EUR"), "acme is billed in USD"),
        ("currency", json!("XXY"), "not a currency"),
        ("kind", json!("gift"), "promotional"),
        ("name", json!("a b"), "name"),
        ("expires_at", json!("2025-01-01T00:00:00Z"), "is past"),
        ("expires_at", json!("soon"), "expires_at"),
    ] {
        let mut bad = credit("bad", "promotional", "1.00");
        bad[field] = value;
        let answer = grant(&fleet, "acme", bad.clone()).await?;
        assert_eq!(answer.status, 400, "{bad}");
        let problem: Value = serde_json::from_str(&answer.body)?;
        assert_eq!(problem["errors"][0]["field"], field, "{bad}: {problem}");
        assert!(answer.body.contains(says), "{bad}: {problem}");
    }
    assert_eq!(grant(&fleet, "nobody", start).await?.status, 404);
    assert_eq!(left(&fleet, "acme").await?, ["25.00"]);
    Ok(())
}

/// What no invoice has used is taken back, once, and no invoice takes from it afterwards; what comes back
/// with a void invoice can be taken back, too. Nobody changes the rows, and none is overdrawn.
#[tokio::test]
async fn what_is_unused_can_be_taken_back() -> Result<()> {
    let fleet = start().await?;
    tenant(&fleet, "acme").await?;
    grant(&fleet, "acme", credit("wire", "prepaid", "12.00")).await?.ok()?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let take_back = async |name: &str, reason: &str| {
        let path = format!("/tenants/acme/credits/{name}/take-back");
        fleet.admin.post(&path, &json!({ "reason": reason })).await
    };
    assert_eq!(take_back("wire", "").await?.status, 400);
    assert_eq!(take_back("none", "Fraud").await?.status, 404);
    let (first, second) = tokio::try_join!(take_back("wire", "Fraud"), take_back("wire", "Fraud"))?;
    for answer in [first.ok()?, second.ok()?] {
        let amounts = ["amount", "left", "taken_back"].map(|field| answer[field].as_str());
        assert_eq!(amounts, [Some("12.00"), Some("0.00"), Some("2.00")]);
    }
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    let made = invoices(&fleet, "acme").await?;
    assert_eq!(
        (amounts(&made[0]), amounts(&made[1])),
        (vec!["10.00", "0.00", "-10.00", "0.00"], vec!["10.00", "0.00", "10.00"])
    );

    let path = format!("/invoices/{}/void", made[0]["id"]);
    fleet.admin.post(&path, &json!({ "reason": "Wrong" })).await?.ok()?;
    assert_eq!(left(&fleet, "acme").await?, ["10.00"]);
    assert_eq!(take_back("wire", "Fraud").await?.ok()?["taken_back"], "12.00");
    grant(&fleet, "acme", credit("more", "prepaid", "4.00")).await?.ok()?;
    run(&fleet, "2025-04-01T00:00:00Z").await?;
    let used_up = take_back("more", "Fraud").await?;
    assert!(used_up.status == 409 && used_up.body.contains("have used all"), "{}", used_up.body);

    for sql in [
        "update credit set amount_minor = 1",
        "delete from credit_use",
        "update credit_reversal set amount_minor = 1",
        "insert into credit_use (credit_id, invoice_id, amount_minor) values (1, 2, 1)",
    ] {
        let error = fleet.stack.database.query(sql).await.err().context("it was done")?;
        let error = format!("{error:#}");
        assert!(error.contains("never changed") || error.contains("less is left"), "{error}");
    }
    Ok(())
}

/// The tenant sees what is left in the portal, and each printed invoice what was left after it.
#[tokio::test]
async fn tenants_see_what_is_left() -> Result<()> {
    let fleet = start().await?;
    tenant(&fleet, "acme").await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let mut wire = credit("wire", "prepaid", "1012.50");
    wire["description"] = json!("Wire <7>");
    grant(&fleet, "acme", wire).await?.ok()?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    let print = async |path: &str| anyhow::Ok(fleet.admin.get(path).await?.body);
    let says = |left: &str| format!("<dt>Credit left</dt><dd>{left}</dd>");
    assert!(!print("/invoices/1?format=html").await?.contains("Credit left"));
    let second = print("/invoices/2?format=html").await?;
    assert!(second.contains(&says("1,002.50")), "{second}");
    let draft = print("/tenants/acme/invoices/preview?format=html").await?;
    assert!(draft.contains(&says("992.50")), "{draft}");

    let (browser, ..) = crate::portal::signed_in(&fleet, "acme").await?;
    let page = browser.get("").await?.body;
    assert!(page.contains("Wire &#60;7&#62;") && page.contains("1,002.50 USD"), "{page}");
    let path = "/tenants/acme/credits/wire/take-back";
    fleet.admin.post(path, &json!({ "reason": "Fraud" })).await?.ok()?;
    assert!(!browser.get("").await?.body.contains("credit-left"));
    assert_eq!(print("/invoices/2?format=html").await?, second);
    Ok(())
}

/// A credit is taken back after a run has read it and before it makes the invoice: that invoice is drawn up
/// again without it, and the others of the run are made.
#[tokio::test]
async fn a_credit_that_is_taken_back_in_a_run_does_not_stop_it() -> Result<()> {
    let fleet = start().await?;
    for id in ["acme", "other"] {
        tenant(&fleet, id).await?;
        grant(&fleet, id, credit("wire", "prepaid", "4.00")).await?.ok()?;
    }
    let query = async |sql: &str| fleet.stack.database.query(sql).await;
    let waiting = async |count: &str| {
        wait_for(&format!("{count} who wait for the tenant"), SOON, async || {
            let sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                         and application_name = 'weir' and datname = current_database()";
            Ok((query(sql).await?.trim() == count).then_some(()))
        })
        .await
    };
    let sleeping =
        "from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    // All wait for this one: first who takes back, then the run, which has read the credit by then.
    let hold = "begin; select id from tenant where id = 'acme' for update; select pg_sleep(60)";
    let let_go = async {
        wait_for("somebody who holds the tenant", SOON, async || {
            Ok((query(&format!("select count(*) {sleeping}")).await?.trim() == "1").then_some(()))
        })
        .await?;
        let reason = json!({ "reason": "Fraud" });
        let take_back = fleet.admin.post("/tenants/acme/credits/wire/take-back", &reason);
        let in_between = async {
            waiting("1").await?;
            let run = run(&fleet, "2025-02-01T00:00:00Z");
            let release = async {
                waiting("2").await?;
                query(&format!("select pg_terminate_backend(pid) {sleeping}")).await
            };
            let (ran, released) = tokio::join!(run, release);
            released?;
            ran
        };
        let (taken, ran) = tokio::join!(take_back, in_between);
        ran?;
        taken?.ok()
    };
    let (_, taken) = tokio::join!(fleet.stack.database.query(hold), let_go);
    assert_eq!(taken?["taken_back"], "4.00");
    assert_eq!(amounts(&invoices(&fleet, "acme").await?[0]), ["10.00", "0.00", "10.00"]);
    assert_eq!(amounts(&invoices(&fleet, "other").await?[0]), ["10.00", "0.00", "-4.00", "6.00"]);
    Ok(())
}
