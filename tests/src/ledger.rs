//! The ledger stores what gateways admitted: each batch once, whatever is repeated, lost or killed.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use xtask::stack::{Parts, Postgres, Stack};

use crate::harness::{Answer, Api, Fleet, SOON, monthly, per_unit, wait_for};

/// One worker of a gateway that is played by the test.
#[derive(Clone)]
pub(crate) struct Worker {
    name: String,
}

impl Worker {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    fn batch(&self, sequence: u64, records: Value) -> Value {
        json!({ "version": 1, "gateway": "played", "worker": self.name, "sequence": sequence, "records": records })
    }

    /// A batch that says that `tenant` spent so much in this minute.
    pub(crate) fn spent(&self, sequence: u64, tenant: &str, tokens: u64, requests: u64) -> Value {
        self.batch(sequence, json!([record(tenant, tokens, requests)]))
    }
}

fn record(tenant: &str, tokens: u64, requests: u64) -> Value {
    json!({ "tenant": tenant, "minute": minute_now(), "tokens": tokens, "requests": requests })
}

fn minute_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60)
}

async fn fleet_with(control_planes: usize) -> Result<Fleet> {
    let fleet = Fleet::with(|stack| stack.control_planes(control_planes).gateways(0)).await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[per_unit("0.0001")]).await?;
    Ok(fleet)
}

/// The edge APIs of all replicas.
fn edges(stack: &Stack) -> Result<Vec<Arc<Api>>> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let urls = stack.control_planes.iter().map(|replica| format!("{}/edge/v1", replica.url()));
    Ok(urls.map(|url| Arc::new(Api::new(&client, url, &stack.gateway_token))).collect())
}

/// As a worker does: again and again, unchanged, until it is acknowledged.
async fn post_until_acknowledged(edge: &Api, batch: &Value) -> Result<()> {
    wait_for("the acknowledgement of a batch", 4 * SOON, async || {
        match edge.post("/usage", batch).await {
            Ok(answer) if answer.status == 200 => Ok(Some(())),
            // Killed, starting, or without Postgres.
            Ok(answer) if answer.status >= 500 => Ok(None),
            Ok(answer) => anyhow::bail!("{} {}", answer.status, answer.body),
            Err(_) => Ok(None),
        }
    })
    .await
}

/// Records and rollup, which must agree: (tokens, requests).
async fn stored(stack: &Stack, tenant: &str) -> Result<String> {
    let sums = "select coalesce(sum(tokens), 0), coalesce(sum(requests), 0) from";
    let of = |table| format!("{sums} {table} where tenant_id = '{tenant}'");
    let records = stack.database.query(&of("usage_record")).await?;
    let rollup = stack.database.query(&of("usage_rollup")).await?;
    ensure!(records == rollup, "the records have {records}, the rollup has {rollup}");
    Ok(records)
}

/// A repeat is answered like the first time, and changes nothing.
#[tokio::test]
async fn a_batch_posted_twice_counts_once() -> Result<()> {
    let fleet = fleet_with(1).await?;
    let batch = Worker::new("w").spent(1, "acme", 5, 2);

    let first = fleet.edge.post("/usage", &batch).await?;
    let again = fleet.edge.post("/usage", &batch).await?;

    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.ok()?, json!({ "sequence": 1 }));
    assert_eq!(stored(&fleet.stack, "acme").await?, "5|2");
    assert_eq!(fleet.ledger("acme").await?, (5, 2));
    Ok(())
}

/// Two replicas get the same batches at the same time, several times each, from many workers.
#[tokio::test]
async fn repeats_to_several_replicas_at_once_count_once() -> Result<()> {
    let fleet = fleet_with(2).await?;
    fleet.tenant("beta", &[], &[]).await?;
    let edges = edges(&fleet.stack)?;

    let mut workers = JoinSet::new();
    for number in 0..8 {
        let (worker, edges) = (Worker::new(&format!("w{number}")), edges.clone());
        workers.spawn(async move {
            for sequence in 1..=20 {
                let records = json!([record("acme", 3, 1), record("beta", 2, 1)]);
                let batch = worker.batch(sequence, records);
                let twice = edges.iter().chain(&edges);
                let posts = twice.map(|edge| (edge.clone(), batch.clone()));
                for answer in post_at_once(posts).await? {
                    assert_eq!(answer.ok()?, json!({ "sequence": sequence }));
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }

    assert_eq!(stored(&fleet.stack, "acme").await?, "480|160");
    assert_eq!(stored(&fleet.stack, "beta").await?, "320|160");
    Ok(())
}

/// Posts each batch to the edge API beside it, all at once; the answers are in the same order.
async fn post_at_once(posts: impl IntoIterator<Item = (Arc<Api>, Value)>) -> Result<Vec<Answer>> {
    let under_way: Vec<_> = posts
        .into_iter()
        .map(|(edge, batch)| tokio::spawn(async move { edge.post("/usage", &batch).await }))
        .collect();
    let mut answers = Vec::new();
    for post in under_way {
        answers.push(post.await??);
    }
    Ok(answers)
}

/// A batch is refused until those before it are there, and the answer says which one is.
#[tokio::test]
async fn a_gap_is_refused_and_the_order_is_kept() -> Result<()> {
    let fleet = fleet_with(1).await?;
    let worker = Worker::new("w");
    let post = async |sequence| {
        fleet.edge.post("/usage", &worker.spent(sequence, "acme", sequence, 1)).await
    };

    let early = post(2).await?;
    assert_eq!(early.status, 409);
    assert!(early.body.contains("the next batch of this worker is 1"), "{}", early.body);
    assert_eq!(stored(&fleet.stack, "acme").await?, "0|0");
    assert_eq!(fleet.stack.database.query("select count(*) from usage_worker").await?, "0");

    for sequence in [1, 2] {
        post(sequence).await?.ok()?;
    }
    let gap = post(5).await?;
    assert!(gap.status == 409 && gap.body.contains("is 3"), "{} {}", gap.status, gap.body);
    assert_eq!(stored(&fleet.stack, "acme").await?, "3|2");
    Ok(())
}

/// What can never be stored is kept aside whole, acknowledged and counted; the batches after it, and
/// other workers' batches at the same time, are stored.
#[tokio::test]
async fn poison_is_quarantined_and_holds_up_nobody() -> Result<()> {
    let fleet = fleet_with(1).await?;
    let worker = Worker::new("ill");
    let good = record("acme", 1, 1);
    let with = |field: &str, value: Value| {
        let mut bad = good.clone();
        bad[field] = value;
        json!([good, bad])
    };
    let huge = 9_007_199_254_740_991_u64;
    let poison = [
        with("tenant", json!("nobody")),
        with("tenant", json!("a/b")),
        with("minute", json!(1)),
        with("minute", json!(minute_now() + 2 * 24 * 60)),
        with("tokens", json!(-1)),
        with("tokens", json!(huge)),
        with("surprise\u{0}", json!("\u{0}")),
        json!("no list"),
    ];
    let healthy = Worker::new("healthy");
    let edge = edges(&fleet.stack)?.remove(0);
    let mut sequence = 0;
    for (index, records) in poison.iter().enumerate() {
        sequence += 1;
        let bad = worker.batch(sequence, records.clone());
        let fine = healthy.spent(index as u64 + 1, "acme", 10, 1);
        for answer in post_at_once([&bad, &fine].map(|batch| (edge.clone(), batch.clone()))).await?
        {
            answer.ok().with_context(|| bad.to_string())?;
        }
        fleet.edge.post("/usage", &bad).await?.ok().context("a repeat")?;
        sequence += 1;
        fleet.edge.post("/usage", &worker.spent(sequence, "acme", 1, 1)).await?.ok()?;
    }

    let count = poison.len();
    assert_eq!(stored(&fleet.stack, "acme").await?, format!("{}|{}", 11 * count, 2 * count));
    let kept = "select count(*), count(*) filter (where body like '%no list%') from usage_quarantine where reason <> ''";
    assert_eq!(fleet.stack.database.query(kept).await?, format!("{count}|1"));
    let metrics = reqwest::get(format!("{}/metrics", fleet.stack.control_planes[0].url()))
        .await?
        .text()
        .await?;
    assert!(
        metrics.contains(&format!("weir_usage_batches_total{{outcome=\"quarantined\"}} {count}")),
        "{metrics}"
    );
    assert!(fleet.stack.control_planes[0].log()?.contains("quarantined"));
    Ok(())
}

/// A sum that only Postgres sees to be too large is poison too, also in the midst of others.
#[tokio::test]
async fn a_rollup_that_would_overflow_is_poison() -> Result<()> {
    let fleet = fleet_with(1).await?;
    fleet.tenant("beta", &[], &[]).await?;
    fleet.edge.post("/usage", &Worker::new("first").spent(1, "beta", 1, 1)).await?.ok()?;

    let edge = edges(&fleet.stack)?.remove(0);
    let batches = (0..40).map(|number| match number {
        20 => Worker::new("greedy").spent(1, "beta", 9_007_199_254_740_991, 1),
        _ => Worker::new(&format!("w{number}")).spent(1, "acme", 1, 1),
    });
    for answer in post_at_once(batches.map(|batch| (edge.clone(), batch))).await? {
        answer.ok()?;
    }

    assert_eq!(stored(&fleet.stack, "acme").await?, "39|39");
    assert_eq!(stored(&fleet.stack, "beta").await?, "1|1");
    let kept = fleet.stack.database.query("select worker from usage_quarantine").await?;
    assert_eq!(kept, "greedy");
    Ok(())
}

/// A body whose worker can't be read is refused with the field; nothing is stored.
#[tokio::test]
async fn what_is_not_a_batch_is_refused() -> Result<()> {
    let fleet = fleet_with(1).await?;
    let good = Worker::new("w").spent(1, "acme", 1, 1);
    for (field, value) in [
        ("version", json!(2)),
        ("version", json!("1")),
        ("gateway", json!("")),
        ("gateway", json!(7)),
        ("worker", json!("x".repeat(200))),
        ("worker", json!("a\nb")),
        ("sequence", json!(0)),
        ("sequence", json!(-1)),
        ("sequence", json!(1.5)),
        ("sequence", json!(u64::MAX)),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let answer = fleet.edge.post("/usage", &bad).await?;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.body);
        assert_eq!(answer.json()?["errors"][0]["field"], field, "{bad}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let raw = async |body: Vec<u8>| {
        Answer::of(fleet.edge.request(Method::POST, "/usage").body(body)).await
    };
    assert_eq!(raw(b"{".to_vec()).await?.status, 400);
    assert_eq!(raw(vec![]).await?.status, 400);
    assert_eq!(raw(vec![0xff; 10]).await?.status, 400);
    assert_eq!(raw(vec![b' '; (4 << 20) + 1]).await?.status, 413);
    for token in [None, Some("wrong"), Some(fleet.stack.admin_token.as_str())] {
        assert_eq!(fleet.edge.with_token(token).post("/usage", &good).await?.status, 401);
    }
    assert_eq!(stored(&fleet.stack, "acme").await?, "0|0");
    Ok(())
}

/// Workers post to all replicas while `kill` kills and restarts what it likes; how many batches.
async fn post_through(stack: &Stack, kill: impl AsyncFnOnce() -> Result<()>) -> Result<u64> {
    let edges = edges(stack)?;
    let over = Rc::new(Cell::new(false));
    let tasks = LocalSet::new();
    let workers: Vec<_> = (0..6)
        .map(|number| tasks.spawn_local(post_until_over(number, edges.clone(), over.clone())))
        .collect();
    tasks
        .run_until(async {
            let killed = kill().await;
            over.set(true);
            let mut posted = 0;
            for worker in workers {
                posted += worker.await??;
            }
            killed.map(|()| posted)
        })
        .await
}

async fn post_until_over(number: usize, edges: Vec<Arc<Api>>, over: Rc<Cell<bool>>) -> Result<u64> {
    let worker = Worker::new(&format!("w{number}"));
    let mut edges = edges.iter().cycle().skip(number);
    let mut posted = 0;
    while posted < 20 || !over.get() {
        posted += 1;
        let edge = edges.next().context("a replica")?;
        post_until_acknowledged(edge, &worker.spent(posted, "acme", 2, 1)).await?;
    }
    Ok(posted)
}

/// `kill -9` of a replica, again and again while workers post: nothing is lost, nothing counts twice.
#[tokio::test]
async fn a_killed_control_plane_loses_and_duplicates_nothing() -> Result<()> {
    let fleet = fleet_with(2).await?;
    let replicas = &fleet.stack.control_planes;

    let posted = post_through(&fleet.stack, async || {
        for round in 0..4 {
            let replica = &replicas[round % 2];
            replica.kill();
            replica.restart().await?;
        }
        Ok(())
    })
    .await?;

    assert_eq!(stored(&fleet.stack, "acme").await?, format!("{}|{posted}", 2 * posted));
    Ok(())
}

/// The same with Postgres.
#[tokio::test]
async fn a_killed_postgres_loses_and_duplicates_nothing() -> Result<()> {
    let parts = tokio::task::spawn_blocking(Parts::provide).await??;
    let postgres = Postgres::start(&parts.tools.postgres_bin).await?;
    let stack = Stack::builder(&parts, &postgres).name("test").gateways(0).start().await?;
    let client = reqwest::Client::new();
    let admin = Api::new(
        &client,
        format!("{}/admin/v1", stack.control_planes[0].url()),
        &stack.admin_token,
    );
    admin.put("/plans/plan", &json!({ "currency": "USD" })).await?.ok()?;
    admin.post("/tenants", &json!({ "id": "acme", "plan": "plan" })).await?.ok()?;

    let posted = post_through(&stack, async || {
        for _ in 0..3 {
            postgres.kill();
            postgres.restart().await?;
        }
        Ok(())
    })
    .await?;

    assert_eq!(stored(&stack, "acme").await?, format!("{}|{posted}", 2 * posted));
    Ok(())
}

/// The usage query sums what was stored, by stretch and by tenant, page by page.
#[tokio::test]
async fn usage_is_queried_by_stretch_and_page() -> Result<()> {
    let fleet = fleet_with(1).await?;
    fleet.tenant("beta", &[], &[]).await?;
    let zurich = json!({ "time_zone": "Europe/Zurich" });
    fleet.admin.patch("/tenants/beta", &zurich).await?.ok()?;
    // 2026-01-31T22:59Z to 23:31Z: midnight in Zurich is at 23:00Z.
    let records: Vec<_> = [(0, 1), (1, 10), (16, 100), (32, 1000)]
        .iter()
        .flat_map(|(offset, tokens)| {
            ["acme", "beta"].map(|tenant| {
                json!({ "tenant": tenant, "minute": 29_498_339 + offset, "tokens": tokens, "requests": 1 })
            })
        })
        .collect();
    fleet.edge.post("/usage", &Worker::new("w").batch(1, json!(records))).await?.ok()?;

    let range = "from=2026-01-31T22:00:00Z&to=2026-02-02T00:00:00Z";
    let by = async |granularity: &str, tenant: &str| {
        let path = format!("/usage?tenant={tenant}&{range}&granularity={granularity}");
        let answer = fleet.admin.get(&path).await?.ok()?;
        let items = answer["items"].as_array().context("items")?.clone();
        let short =
            |item: &Value| format!("{} {}", item["from"].as_str().unwrap_or(""), item["tokens"]);
        anyhow::Ok(items.iter().map(short).collect::<Vec<_>>())
    };
    let hours = ["2026-01-31T22:00:00Z 1", "2026-01-31T23:00:00Z 1110"];
    assert_eq!(by("hour", "acme").await?, hours);
    assert_eq!(by("day", "acme").await?, ["2026-01-31T22:00:00Z 1111"]);
    assert_eq!(by("day", "beta").await?, hours, "the first day is cut at from");
    assert_eq!(by("total", "beta").await?, ["2026-01-31T22:00:00Z 1111"]);
    assert_eq!(by("quarter_hour", "acme").await?.len(), 4);

    let mut path = format!("/usage?{range}&granularity=quarter_hour&limit=3");
    let mut seen = Vec::new();
    loop {
        let page = fleet.admin.get(&path).await?.ok()?;
        seen.extend(page["items"].as_array().context("items")?.clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/usage?{range}&granularity=quarter_hour&limit=3&after={next}");
    }
    assert_eq!(seen.len(), 8);
    assert_eq!(seen.iter().filter_map(|item| item["tokens"].as_u64()).sum::<u64>(), 2222);

    for (query, field) in [
        ("", "from"),
        ("from=2026-01-31T22:01:00Z", "from"),
        ("from=2024-01-31T22:00:00Z&to=2026-01-31T22:00:00Z", "from"),
        ("from=2026-01-31T22:00:00Z&to=2026-01-31T22:00:00Z", "to"),
        ("from=yesterday", "from"),
        ("from=2026-01-31T22:00:00Z&granularity=week", "granularity"),
        ("from=2026-01-31T22:00:00Z&limit=0", "limit"),
        ("from=2026-01-31T22:00:00Z&after=zz", "after"),
        ("from=2026-01-31T22:00:00Z&tenant=a/b", "tenant"),
    ] {
        let answer = fleet.admin.get(&format!("/usage?{query}")).await?;
        assert!(answer.status == 400 && answer.body.contains(field), "{query}: {}", answer.body);
    }
    assert_eq!(fleet.admin.get(&format!("/usage?tenant=nobody&{range}")).await?.status, 404);
    assert_eq!(fleet.admin.get("/tenants/nobody/usage").await?.status, 404);
    Ok(())
}
