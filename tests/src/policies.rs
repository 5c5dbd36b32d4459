//! Rating policies: put in OPA's form, kept in versions, tried, chosen, and told to gateways.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    admin_api::operator,
    harness::{Answer, Fleet, SOON},
    ledger::Worker,
};

const CHEAP: &str = "package weir.rating\n\nallow := true\n\ncost := 2\n";
const DEAR: &str = "package weir.rating\n\nallow := true\n\ncost := 30\n";
const OF_BUCKETS: &str =
    "package weir.rating\n\nallow if data.buckets[input.tenant].tokens > 5\n\ncost := 5\n";

impl Fleet {
    /// A call of OPA's REST API with the operator's token.
    pub(crate) async fn policy(&self, method: Method, path: &str, text: &str) -> Result<Answer> {
        let url = format!("/../../v1/policies{path}");
        Answer::of(self.admin.request(method, &url).body(text.to_owned())).await
    }

    pub(crate) async fn put_policy(&self, id: &str, text: &str) -> Result<Answer> {
        self.policy(Method::PUT, &format!("/{id}"), text).await
    }

    /// The version that the policy is at.
    pub(crate) async fn policy_version(&self, id: &str) -> Result<u64> {
        let answer = self.policy(Method::GET, &format!("/{id}"), "").await?.ok()?;
        answer["result"]["version"].as_u64().context("no version")
    }

    pub(crate) async fn choose(&self, gateways: Option<&str>) -> Result<Answer> {
        let choice = json!({ "gateways": gateways, "data_api": null });
        self.admin.put("/rating-policy", &choice).await
    }

    /// What a gateway is told that has this policy and knows everything up to `after`.
    async fn told(&self, after: u64, has: u64) -> Result<Value> {
        let path = format!("/config?version=1&after={after}&gateway=gw-1&policy={has}");
        self.edge.get(&path).await?.ok()
    }
}

/// What is put is what is got; what does not compile is refused with its place and changes nothing.
#[tokio::test]
async fn policies_are_put_in_the_form_of_opa() -> Result<()> {
    let fleet = operator().await?;
    assert_eq!(fleet.policy(Method::GET, "", "").await?.ok()?, json!({ "result": [] }));
    let missing = fleet.policy(Method::GET, "/main", "").await?;
    assert_eq!((missing.status, &missing.json()?["code"]), (404, &json!("resource_not_found")));

    assert_eq!(fleet.put_policy("main", CHEAP).await?.ok()?, json!({}));
    let first = fleet.policy_version("main").await?;
    let kept = fleet.policy(Method::GET, "/main", "").await?.ok()?["result"].clone();
    assert_eq!(kept, json!({ "id": "main", "raw": CHEAP, "version": first }));

    let broken = fleet.put_policy("main", "package weir.rating\n\nallow := tru e\n").await?;
    assert_eq!(broken.status, 400, "{}", broken.body);
    let broken = broken.json()?;
    assert_eq!(broken["code"], "invalid_parameter");
    let mistake = &broken["errors"][0];
    assert_eq!(mistake["location"], json!({ "file": "main", "row": 3, "col": 14 }), "{mistake}");
    for (text, told) in [
        ("package other\nallow := true", "`package weir.rating`"),
        ("package weir.rating\nallow := input.pathh == \"/\"", "there is no `input.pathh`"),
        ("package weir.rating\nallow if allow", "circle"),
    ] {
        let answer = fleet.put_policy("main", text).await?;
        assert!(answer.status == 400 && answer.body.contains(told), "{}", answer.body);
    }
    let huge = fleet.put_policy("main", &format!("{CHEAP}#{}", "x".repeat(40_000))).await?;
    assert!(huge.status == 400 && huge.body.contains("32768"), "{}", huge.body);
    assert_eq!(fleet.put_policy("main", &"#\n".repeat(70_000)).await?.status, 413);
    assert_eq!(fleet.put_policy("a%2Fb", CHEAP).await?.json()?["code"], "invalid_parameter");
    assert_eq!(fleet.policy(Method::GET, "/main", "").await?.ok()?["result"], kept);

    fleet.put_policy("main", CHEAP).await?.ok()?;
    assert_eq!(fleet.policy_version("main").await?, first, "the same text is the same version");
    fleet.put_policy("other", DEAR).await?.ok()?;
    let all = fleet.policy(Method::GET, "", "").await?.ok()?;
    let ids: Vec<_> = all["result"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["main", "other"]);

    assert_eq!(fleet.policy(Method::DELETE, "/main", "").await?.ok()?, json!({}));
    assert_eq!(fleet.policy(Method::DELETE, "/main", "").await?.status, 404);
    assert_eq!(fleet.policy(Method::GET, "/main", "").await?.status, 404);
    Ok(())
}

/// Versions stay, a policy can be taken back to each, and no two policies have one in common.
#[tokio::test]
async fn policies_go_back_to_their_versions() -> Result<()> {
    let fleet = operator().await?;
    let mut versions = Vec::new();
    for (id, text) in [("main", CHEAP), ("other", CHEAP), ("main", DEAR)] {
        fleet.put_policy(id, text).await?.ok()?;
        versions.push(fleet.policy_version(id).await?);
    }
    let (cheap, others, dear) = (versions[0], versions[1], versions[2]);
    assert!(cheap < others && others < dear, "{versions:?}");

    let back = |version: u64| json!({ "version": version });
    let answer = fleet.admin.post("/policies/main/roll-back", &back(cheap)).await?.ok()?;
    assert_eq!((&answer["version"], &answer["source"]), (&json!(cheap), &json!(CHEAP)));
    assert_eq!(fleet.policy_version("main").await?, cheap);
    let list = fleet.admin.get("/policies/main/versions").await?.ok()?;
    let list: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["version"], &one["current"]))
        .collect();
    assert_eq!(list, [(&json!(dear), &json!(false)), (&json!(cheap), &json!(true))]);

    let strange = fleet.admin.post("/policies/main/roll-back", &back(others)).await?;
    assert!(strange.status == 400 && strange.body.contains("has no version"), "{}", strange.body);
    assert_eq!(fleet.admin.post("/policies/none/roll-back", &back(cheap)).await?.status, 404);

    fleet.policy(Method::DELETE, "/main", "").await?.ok()?;
    fleet.admin.post("/policies/main/roll-back", &back(dear)).await?.ok()?;
    assert_eq!(fleet.policy_version("main").await?, dear, "what was deleted can come back");
    Ok(())
}

/// A gateway that waits hears of each change of the active policy at once, and of no other; and it is
/// seen which version it has.
#[tokio::test]
async fn gateways_hear_of_the_active_policy() -> Result<()> {
    let fleet = operator().await?;
    fleet.put_policy("main", CHEAP).await?.ok()?;
    let start = fleet.told(0, 0).await?;
    assert_eq!(start["policy"]["version"], 0, "none is active: {start}");
    let mut revision = start["revision"].as_u64().context("no revision")?;
    let mut has = 0;

    // What each step does, and the text that gateways have after it.
    let steps: [(&str, Option<&str>); 5] = [
        ("choose", Some(CHEAP)),
        ("put", Some(DEAR)),
        ("roll back", Some(CHEAP)),
        ("put", Some(DEAR)),
        ("choose none", None),
    ];
    let cheap = fleet.policy_version("main").await?;
    for (step, text) in steps {
        let change = async {
            // These change nothing for gateways.
            fleet.put_policy("other", &format!("{CHEAP}# {revision}")).await?.ok()?;
            assert_eq!(
                fleet.put_policy("main", "package weir.rating\nallow :=").await?.status,
                400
            );
            match step {
                "choose" => fleet.choose(Some("main")).await?.ok()?,
                "put" => fleet.put_policy("main", DEAR).await?.ok()?,
                "roll back" => {
                    let back = json!({ "version": cheap });
                    fleet.admin.post("/policies/main/roll-back", &back).await?.ok()?
                }
                _ => fleet.choose(None).await?.ok()?,
            };
            anyhow::Ok(())
        };
        let (told, changed) = tokio::join!(
            // The poll would end by itself after 20 s.
            tokio::time::timeout(SOON, fleet.told(revision, has)),
            change
        );
        changed?;
        let told = told.context("the change was not told")??;
        let policy = &told["policy"];
        assert_eq!(policy["source"].as_str(), Some(text.unwrap_or_default()), "{step}: {told}");
        assert_eq!(told["revision"], revision + 1, "{step}");
        has = policy["version"].as_u64().context("no version")?;
        revision += 1;
        let again = fleet.told(revision - 1, has).await?;
        assert_eq!(again["policy"], Value::Null, "it has it: {again}");
        // A database that was restored may have another text under that number.
        let anew = fleet.told(revision + 7, has).await?;
        assert_eq!(anew["policy"]["source"], policy["source"], "{anew}");
        let gateways = fleet.admin.get("/gateways").await?.ok()?;
        assert_eq!(gateways["items"][0]["id"], "gw-1");
        assert_eq!(gateways["items"][0]["policy_version"], has);
    }
    // Who does not know whether there is one does not wait for a change.
    let path = format!("/config?version=1&after={revision}");
    let first = fleet.edge.get(&path).await?.ok()?;
    assert_eq!((&first["revision"], &first["policy"]["version"]), (&json!(revision), &json!(has)));
    Ok(())
}

/// A policy that reads what is left works where that is known, and gateways do not get it.
#[tokio::test]
async fn buckets_are_not_read_in_gateways() -> Result<()> {
    let fleet = operator().await?;
    fleet.put_policy("main", CHEAP).await?.ok()?;
    fleet.put_policy("careful", OF_BUCKETS).await?.ok()?;
    let refused = fleet.choose(Some("careful")).await?;
    assert_eq!(refused.status, 400);
    for told in ["line 3, column 10", "the cost is taken only where there is enough"] {
        assert!(refused.body.contains(told), "{}", refused.body);
    }
    let choice = json!({ "gateways": "main", "data_api": "careful" });
    let active = fleet.admin.put("/rating-policy", &choice).await?.ok()?;
    assert_eq!(active["gateways"]["policy"], "main");
    assert_eq!(active["data_api"]["policy"], "careful");
    assert_eq!(fleet.admin.get("/rating-policy").await?.ok()?, active);

    let refused = fleet.put_policy("main", OF_BUCKETS).await?;
    assert_eq!(refused.json()?["errors"][0]["location"]["row"], 3, "{}", refused.body);
    assert_eq!(fleet.admin.get("/rating-policy").await?.ok()?, active);
    for id in ["main", "careful"] {
        assert_eq!(fleet.policy(Method::DELETE, &format!("/{id}"), "").await?.status, 409);
    }
    let unknown = json!({ "gateways": "none", "data_api": null });
    assert_eq!(fleet.admin.put("/rating-policy", &unknown).await?.status, 400);

    let inputs = json!([{ "tenant": "acme" }]);
    let run = async |tokens: u64| {
        let run = json!({ "inputs": inputs, "buckets": { "tokens": tokens } });
        let said = fleet.admin.post("/policies/careful/dry-run", &run).await?.ok()?;
        anyhow::Ok(said["outcomes"][0]["decision"]["allow"].clone())
    };
    assert_eq!((run(6).await?, run(5).await?), (json!(true), json!(false)));
    Ok(())
}

/// A dry run says what a policy would say, of what it is given and of what was used lately.
#[tokio::test]
async fn a_dry_run_changes_nothing() -> Result<()> {
    let fleet = operator().await?;
    fleet.tenant("acme", &[], &[]).await?;
    let by_model = include_str!("../../envoy/policies/cost_by_model.rego");
    fleet.put_policy("main", CHEAP).await?.ok()?;
    let run = async |run: Value| fleet.admin.post("/policies/main/dry-run", &run).await;

    let said = run(json!({ "inputs": [{ "tenant": "acme", "path": "/x" }] })).await?.ok()?;
    assert_eq!(said["version"], fleet.policy_version("main").await?);
    assert_eq!(
        said["outcomes"][0]["decision"],
        json!({ "allow": true, "cost": 2, "meter": "default" })
    );

    let minute = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 60;
    let used = |model: &str, requests: u64| json!({ "tenant": "acme", "minute": minute, "model": model, "tokens": requests, "requests": requests });
    let worker = Worker::new("w");
    let batch = worker.batch(1, json!([used("", 3), used("gpt-4.1-mini", 5)]));
    fleet.edge.post("/usage", &batch).await?.ok()?;
    let said = run(json!({ "source": by_model, "recent": true })).await?.ok()?;
    assert_eq!(said["version"], Value::Null);
    let outcomes = said["outcomes"].as_array().context("no outcomes")?;
    let requests: i64 = outcomes.iter().filter_map(|one| one["requests"].as_i64()).sum();
    assert_eq!(requests, 8, "{said}");
    assert!(
        outcomes
            .iter()
            .all(|one| one["input"]["tenant"] == "acme" && one["input"]["plan"] == "acme-plan")
    );

    let failing = "package weir.rating\nallow := true\ncost := input.prompt_tokens";
    let said = run(json!({ "source": failing, "inputs": [{}] })).await?.ok()?;
    let failure = said["outcomes"][0]["failure"].as_str().context("no failure")?;
    assert!(failure.contains("`cost` is undefined"), "{failure}");

    for (body, field) in [
        (json!({ "source": "package weir.rating\nallow :=", "inputs": [] }), "source"),
        (json!({ "inputs": [{ "tennant": "acme" }] }), "inputs[0].tennant"),
        (json!({ "source": CHEAP, "version": 1 }), "version"),
        (json!({ "inputs": vec![json!({}); 1_001] }), "inputs"),
    ] {
        let answer = run(body).await?;
        assert_eq!(
            (answer.status, &answer.json()?["errors"][0]["field"]),
            (400, &json!(field)),
            "{}",
            answer.body
        );
    }
    // Nothing but the tenant has been announced.
    let revision = fleet.stack.database.query("select revision from config_revision").await?;
    assert_eq!(revision.trim(), "2");
    assert_eq!(
        fleet.stack.database.query("select count(*) from policy_version").await?.trim(),
        "1"
    );
    Ok(())
}

/// Many operators at once: each put is a version or is refused, and what is active is one of them.
#[tokio::test]
async fn puts_at_the_same_time_follow_each_other() -> Result<()> {
    let fleet = operator().await?;
    fleet.put_policy("main", CHEAP).await?.ok()?;
    fleet.choose(Some("main")).await?.ok()?;
    let puts = (0..12).map(|n| {
        let text = if n % 3 == 2 { OF_BUCKETS.to_owned() } else { format!("{CHEAP}# {n}") };
        let request = fleet.admin.request(Method::PUT, "/../../v1/policies/main").body(text);
        tokio::spawn(async move { anyhow::Ok((n, Answer::of(request).await?.status)) })
    });
    for put in puts.collect::<Vec<_>>() {
        let (n, status) = put.await??;
        assert_eq!(status, if n % 3 == 2 { 400 } else { 200 }, "{n}");
    }
    let told = tokio::time::timeout(Duration::from_secs(10), fleet.told(0, 0)).await??;
    assert_eq!(told["policy"]["version"], fleet.policy_version("main").await?);
    let count = fleet.stack.database.query("select count(*) from policy_version").await?;
    assert_eq!(count.trim(), "9");
    // Its tenth revision: one is the first, one was the choice, eight were puts.
    assert_eq!(told["revision"], 10);
    Ok(())
}
