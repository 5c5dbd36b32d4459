//! The portal shows a tenant what is true of it, and nobody else.

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder, redirect::Policy};
use serde_json::{Value, json};

use crate::{
    harness::{Answer, Fleet, SOON, flat, monthly, per_unit_above, periodic, wait_for},
    ledger::Worker,
};

/// A browser without scripts: it keeps the one cookie and shows where it is redirected to.
pub(crate) struct Browser {
    client: Client,
    base: String,
    cookie: String,
}

impl Browser {
    pub(crate) fn new(fleet: &Fleet) -> Result<Self> {
        let client = Client::builder().redirect(Policy::none()).build()?;
        Ok(Self { client, base: fleet.stack.control_planes[0].url(), cookie: String::new() })
    }

    fn request(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("cookie", &self.cookie).header("origin", &self.base)
    }

    /// A page of the portal, such as `/invoices/1`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        Answer::of(self.request(self.client.get(format!("{}/portal{path}", self.base)))).await
    }

    async fn page(&self) -> Result<Answer> {
        self.get("").await
    }

    async fn sign_in(&mut self, key: &str) -> Result<Answer> {
        let form = self.form("sign-in", &format!("key={key}"));
        self.send(form).await
    }

    async fn sign_out(&mut self) -> Result<Answer> {
        let form = self.form("sign-out", "");
        self.send(form).await
    }

    fn form(&self, action: &str, body: &str) -> RequestBuilder {
        self.request(self.client.post(format!("{}/portal/{action}", self.base)))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.to_owned())
    }

    async fn send(&mut self, form: RequestBuilder) -> Result<Answer> {
        let answer = Answer::of(form).await?;
        if let Some((cookie, _)) = answer.header("set-cookie").split_once(';') {
            self.cookie = cookie.to_owned();
        }
        Ok(answer)
    }
}

/// Signs the tenant in with a new key; the browser, the key and the key's id.
pub(crate) async fn signed_in(fleet: &Fleet, tenant: &str) -> Result<(Browser, String, u64)> {
    let made = fleet
        .admin
        .post(&format!("/tenants/{tenant}/api-keys"), &json!({ "name": "portal" }))
        .await?
        .ok()?;
    let key = made["key"].as_str().context("key")?.to_owned();
    let mut browser = Browser::new(fleet)?;
    let answer = browser.sign_in(&key).await?;
    ensure!(answer.status == 303, "{} {}", answer.status, answer.body);
    Ok((browser, key, made["id"].as_u64().context("id")?))
}

/// The `value` of the first element behind `place` that has this attribute.
fn value<'a>(html: &'a str, place: &str, attribute: &str) -> Result<&'a str> {
    let (_, rest) = html.split_once(place).with_context(|| format!("{place} in {html}"))?;
    let (_, rest) = rest.split_once(attribute).with_context(|| format!("{attribute} in {html}"))?;
    let (_, rest) = rest.split_once("value=\"").context("value")?;
    Ok(rest.split_once('"').context("end of value")?.0)
}

/// Sign-in sets a cookie that scripts and other sites can't use; sign-out ends the session itself.
#[tokio::test]
async fn a_key_signs_in_until_sign_out() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let (mut browser, key, _) = signed_in(&fleet, "acme").await?;

    let page = browser.page().await?;
    assert!(page.status == 200 && page.body.contains("id=\"tenant\">acme<"), "{}", page.body);
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(!page.body.contains("<script") && !page.body.contains(&key));

    let cookie = browser.cookie.clone();
    let out = browser.sign_out().await?;
    assert_eq!((out.status, out.header("location")), (303, "/portal"));
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    browser.cookie = cookie;
    assert!(browser.page().await?.body.contains("name=\"key\""), "the old cookie is worth nothing");

    let again = browser.sign_in(&key).await?;
    let set = again.header("set-cookie");
    assert!(set.contains("HttpOnly; SameSite=Strict") && set.contains("Path=/portal"), "{set}");
    assert!(!set.contains("Secure"), "{set}");
    let https = browser.form("sign-in", &format!("key={key}")).header("x-forwarded-proto", "https");
    assert!(browser.send(https).await?.header("set-cookie").contains("; Secure"));
    Ok(())
}

/// A wrong key, no key, a revoked key and a form from another site sign nobody in.
#[tokio::test]
async fn nobody_else_gets_in() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[], &[]).await?;
    let (signed_in, key, id) = signed_in(&fleet, "acme").await?;
    let mut stranger = Browser::new(&fleet)?;

    assert!(stranger.page().await?.body.contains("name=\"key\""));
    for wrong in ["weir_key_0000", "%00", "%FF", "<script>"] {
        let answer = stranger.sign_in(wrong).await?;
        assert!((400..=401).contains(&answer.status), "{wrong}: {}", answer.status);
        assert!(answer.body.contains("role=\"alert\"") && answer.body.contains("name=\"key\""));
        assert!(answer.header("set-cookie").is_empty() && !answer.body.contains("<script>"));
    }
    assert_eq!(stranger.sign_in("weir_key_0000").await?.status, 401);
    assert_eq!(stranger.sign_in("").await?.status, 400);
    assert_eq!(stranger.sign_in(&"x".repeat(10_000)).await?.status, 400);
    let foreign = Browser { base: "https://evil.example".to_owned(), ..Browser::new(&fleet)? };
    let form = foreign
        .request(foreign.client.post(format!("{}/portal/sign-in", stranger.base)))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("key={key}"));
    assert_eq!(Answer::of(form).await?.status, 403);
    stranger.cookie = "weir_session=0000".to_owned();
    assert!(stranger.page().await?.body.contains("name=\"key\""));

    assert!(signed_in.page().await?.body.contains("id=\"tenant\">acme<"));
    fleet.admin.delete(&format!("/tenants/acme/api-keys/{id}")).await?.ok()?;
    assert!(signed_in.page().await?.body.contains("name=\"key\""), "its session has ended");
    assert_eq!(stranger.sign_in(&key).await?.status, 401);
    Ok(())
}

/// Usage, invoices and what is left are those of the API.
#[tokio::test]
async fn the_page_shows_what_the_api_says() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    let limits = [monthly(10_000), periodic("calls", "requests", 50, json!("day"))];
    let prices = [flat("49.00"), per_unit_above(1_000, "0.0123")];
    fleet.tenant("acme", &limits, &prices).await?;
    fleet.tenant("other", &[], &prices).await?;
    let worker = Worker::new("w");
    let (browser, ..) = signed_in(&fleet, "acme").await?;
    fleet.edge.post("/usage", &worker.spent(1, "acme", 1_234, 56)).await?.ok()?;
    fleet.edge.post("/usage", &worker.spent(2, "other", 1_000_000, 1)).await?.ok()?;

    let page = browser.page().await?.body;
    let usage = fleet.admin.get("/tenants/acme/usage").await?.ok()?;
    assert_eq!((usage["tokens"].as_u64(), usage["requests"].as_u64()), (Some(1_234), Some(56)));
    assert_eq!(value(&page, "<main", "id=\"tokens\"")?, "1234");
    assert_eq!(value(&page, "<main", "id=\"requests\"")?, "56");
    assert_eq!(value(&page, "id=\"days\"", "class=\"tokens\"")?, "1234");
    let preview = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    shows_invoice(&page, "id=\"upcoming\"", &preview)?;
    assert_eq!(preview["total"], "51.88", "49.00 + 234 × 0.0123");
    let buckets = fleet.admin.get("/tenants/acme/buckets").await?.ok()?;
    for bucket in buckets["items"].as_array().context("items")? {
        let place = format!("data-limit={}", bucket["limit"]);
        assert_eq!(value(&page, &place, "remaining")?, bucket["remaining"].to_string());
        let numbers = ["capacity", "adjustment"].map(|name| bucket[name].as_i64().unwrap_or(0));
        assert_eq!(value(&page, &place, "capacity")?, numbers.iter().sum::<i64>().to_string());
    }
    assert!(page.contains("There are no invoices yet"));

    let invoice = fleet.admin.post("/tenants/acme/billing-period/end", &json!({})).await?.ok()?;
    let page = browser.page().await?.body;
    let number = invoice["number"].as_str().context("number")?;
    shows_invoice(&page, &format!("data-invoice=\"{number}\""), &invoice)?;
    assert_eq!(invoice["total"], preview["total"]);
    assert!(!page.contains("1,000,000"), "nothing of another tenant");
    Ok(())
}

/// The lines and the total of `invoice` are what the page shows at `place`.
fn shows_invoice(page: &str, place: &str, invoice: &Value) -> Result<()> {
    let lines = invoice["lines"].as_array().context("lines")?;
    let (_, shown) = page.split_once(place).with_context(|| format!("{place} in {page}"))?;
    let (shown, _) = shown.split_once("</table>").context("table")?;
    let mut rows = shown.split("<tr class=\"line\">").skip(1);
    for line in lines {
        let row = rows.next().context("a row for each line")?;
        ensure!(value(row, "", "line-amount")? == line["amount"], "{line} in {row}");
        ensure!(row.contains(line["name"].as_str().context("name")?), "{line} in {row}");
    }
    ensure!(rows.next().is_none(), "rows without lines in {shown}");
    ensure!(value(shown, "", "class=\"total\"")? == invoice["total"], "{invoice} in {shown}");
    Ok(())
}

/// A suspended tenant is told so; without Redis the page says that what is left is not known, and
/// shows the rest.
#[tokio::test]
async fn trouble_is_said() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[monthly(100)], &[flat("49.00")]).await?;
    let (browser, ..) = signed_in(&fleet, "acme").await?;
    let page = browser.page().await?.body;
    assert!(
        !page.contains("id=\"suspended\"") && !page.contains("id=\"limits-unknown\""),
        "{page}"
    );
    assert_eq!(value(&page, "data-limit=\"monthly\"", "remaining")?, "100");

    fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    assert!(browser.page().await?.body.contains("This account is suspended"));
    fleet.admin.post("/tenants/acme/resume", &json!({})).await?.ok()?;

    fleet.stack.redis.kill();
    let page = browser.page().await?;
    assert!(page.status == 200 && page.body.contains("id=\"limits-unknown\""), "{}", page.body);
    assert_eq!(value(&page.body, "id=\"upcoming\"", "class=\"total\"")?, "49.00");
    fleet.stack.redis.restart().await?;
    wait_for("what is left", SOON, async || {
        Ok(browser.page().await?.body.contains("data-limit=\"monthly\"").then_some(()))
    })
    .await
}
