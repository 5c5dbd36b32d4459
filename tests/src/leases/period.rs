//! Periodic limits: dealt whole, and not one token more.

use anyhow::Result;
use serde_json::json;
use weir_domain::protocol::TenantState;

use super::{Numbers, Worker, adjust, amount, bucket, control_planes};
use crate::harness::{SOON, continuous, monthly, periodic, wait_for};

/// Six workers on three gateways and two control planes ask at once for random amounts: what they
/// get adds up to the capacity exactly.
#[tokio::test]
async fn a_period_is_dealt_whole_and_no_more() -> Result<()> {
    let fleet = control_planes(2).await?;
    fleet.tenant("acme", &[monthly(10_000)], &[]).await?;
    let workers = (0..6u64).map(|number| {
        let control_plane = usize::try_from(number % 2)?;
        let worker =
            Worker::of(&fleet, control_plane, &format!("g{}", number % 3), &format!("w{number}"));
        Ok(tokio::spawn(async move {
            let (mut numbers, mut sum) = (Numbers(number), 0);
            for _ in 0..40 {
                let need = 1 + numbers.below(20);
                let want = need + numbers.below(200);
                // Undecided while a block of the other control plane is on its way.
                let ask = worker.next("acme", amount(need, 1), amount(want, 9));
                let granted = worker.send_until_decided(&ask).await?.granted;
                assert!(
                    granted.is_zero() || granted.covers(amount(need, 1)),
                    "all of the need or nothing"
                );
                assert!(amount(want, 9).covers(granted), "no more than was wanted");
                sum += granted.tokens.get();
            }
            Ok::<_, anyhow::Error>(sum + worker.drain("acme").await?)
        }))
    });
    let mut sum = 0;
    for worker in workers.collect::<Result<Vec<_>>>()? {
        sum += worker.await??;
    }

    assert_eq!(sum, 10_000);
    assert_eq!(bucket(&fleet, "acme", "monthly").await?["claimed"], 10_000);
    let refused = Worker::new(&fleet, "g9", "w").ask("acme", amount(1, 1), amount(5, 5)).await?;
    assert!(refused.limits[0].violated && refused.retry_after_ms > 0 && refused.ask_again_ms > 0);
    assert!(refused.ask_again_ms <= 2_000, "{}", refused.ask_again_ms);
    Ok(())
}

/// A call that is repeated gets the same answer, and is debited once; an older one gets nothing.
#[tokio::test]
async fn a_repeated_call_is_debited_once() -> Result<()> {
    let fleet = control_planes(1).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    let older = worker.next("acme", amount(1, 1), amount(7, 7));
    let ask = worker.next("acme", amount(1, 1), amount(10, 10));

    let first = worker.send(&ask).await?;
    let again = worker.send(&ask).await?;
    let older = worker.send(&older).await?;

    assert_eq!(first.granted, amount(10, 10));
    assert_eq!((again.granted, &again.stamp), (first.granted, &first.stamp));
    assert!(again.ttl_ms <= first.ttl_ms && again.ttl_ms > 0);
    let ends = |ttl_ms: u64, now_ms: i64| now_ms + i64::try_from(ttl_ms).unwrap();
    assert_eq!(ends(again.ttl_ms, again.now_ms), ends(first.ttl_ms, first.now_ms));
    assert_eq!(older.granted, amount(0, 0));
    assert_eq!(worker.drain("acme").await?, 90);
    Ok(())
}

/// Only what a lease holds can be given back, once, and under its own stamp.
#[tokio::test]
async fn a_refund_counts_once_and_with_its_stamp() -> Result<()> {
    let fleet = control_planes(1).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    let lease = worker.ask("acme", amount(40, 1), amount(40, 1)).await?;
    let give_back = |stamp: &str, tokens| {
        let mut ask = worker.next("acme", amount(0, 0), amount(0, 0));
        stamp.clone_into(&mut ask.stamp);
        ask.refund = amount(tokens, 0);
        ask
    };

    worker.send(&give_back("another", 40)).await?;
    let ask = give_back(&lease.stamp, 1_000);
    let answer = worker.send(&ask).await?;
    worker.send(&ask).await?;

    assert_eq!(answer.limits[0].remaining.get(), 100);
    assert_eq!(worker.drain("acme").await?, 100);
    Ok(())
}

/// Several limits are decided together: where one refuses, none is debited.
#[tokio::test]
async fn limits_are_debited_together_or_not_at_all() -> Result<()> {
    let fleet = control_planes(1).await?;
    let limits = [monthly(100), continuous("burst", "requests", 5, 1, 3_600_000)];
    fleet.tenant("acme", &limits, &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");

    let refused = worker.ask("acme", amount(10, 6), amount(10, 6)).await?;
    let granted = worker.ask("acme", amount(10, 5), amount(10, 5)).await?;
    let mut ask = worker.next("acme", amount(1, 1), amount(1, 1));
    granted.stamp.clone_into(&mut ask.stamp);
    ask.spent = amount(10, 5);
    let empty = worker.send(&ask).await?;

    assert_eq!(refused.granted, amount(0, 0));
    let violated: Vec<bool> = refused.limits.iter().map(|limit| limit.violated).collect();
    assert_eq!((violated, refused.retry_after_ms), (vec![false, true], 0), "6 can never be had");
    assert_eq!(granted.granted, amount(10, 5));
    assert_eq!(empty.granted, amount(0, 0));
    let hour_ms = 3_600_000;
    assert!(
        (hour_ms - 5_000..=hour_ms).contains(&empty.retry_after_ms),
        "{}",
        empty.retry_after_ms
    );
    assert_eq!(bucket(&fleet, "acme", "monthly").await?["remaining"], 90);
    Ok(())
}

/// Top-ups and cuts count at once, in full, and are kept.
#[tokio::test]
async fn adjustments_count_at_once() -> Result<()> {
    let fleet = control_planes(2).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let worker = Worker::of(&fleet, 1, "g", "w");
    assert_eq!(worker.drain("acme").await?, 100);

    let topped_up = adjust(&fleet, "acme", "monthly", 50).await?;
    assert_eq!((topped_up.status, topped_up.json()?["adjustment"].as_i64()), (201, Some(50)));
    assert_eq!(worker.ask("acme", amount(10, 1), amount(10, 1)).await?.granted, amount(10, 1));
    assert_eq!(adjust(&fleet, "acme", "monthly", -30).await?.status, 201);
    assert_eq!(adjust(&fleet, "acme", "monthly", -11).await?.status, 409, "10 are left");

    assert_eq!(worker.drain("acme").await?, 10);
    let kept = fleet.admin.get("/tenants/acme/buckets/monthly/adjustments").await?.ok()?;
    assert_eq!(kept["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(bucket(&fleet, "acme", "monthly").await?["claimed"], 120);
    Ok(())
}

/// A plan that gets smaller takes back what is not dealt yet; one that grows gives more.
#[tokio::test]
async fn another_capacity_counts_within_the_period() -> Result<()> {
    let fleet = control_planes(1).await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    assert_eq!(worker.ask("acme", amount(100, 1), amount(100, 1)).await?.granted, amount(100, 1));
    for (capacity, more) in [(150, 50), (300, 150)] {
        let plan = json!({ "currency": "USD", "limits": [monthly(capacity)], "prices": [] });
        fleet.admin.put("/plans/acme-plan", &plan).await?.ok()?;
        let known = async || {
            let answer = worker.ask("acme", amount(0, 0), amount(0, 0)).await?;
            Ok((answer.limits[0].capacity.get() == capacity).then_some(()))
        };
        wait_for("the new capacity", SOON, known).await?;
        assert_eq!(worker.drain("acme").await?, more);
    }
    Ok(())
}

/// Suspended and unknown tenants get nothing, beside others that do, and again once resumed.
#[tokio::test]
async fn suspended_and_unknown_tenants_get_nothing() -> Result<()> {
    let fleet = control_planes(1).await?;
    for tenant in ["acme", "bolt"] {
        fleet.tenant(tenant, &[periodic("daily", "requests", 100, json!("day"))], &[]).await?;
    }
    fleet.admin.post("/tenants/bolt/suspend", &json!({})).await?.ok()?;
    let worker = Worker::new(&fleet, "g", "w");
    let asks =
        ["acme", "bolt", "nobody"].map(|tenant| worker.next(tenant, amount(1, 1), amount(2, 2)));

    let answers = worker.send_all(asks.to_vec()).await?;

    let seen: Vec<_> = answers.iter().map(|answer| (answer.state, answer.granted)).collect();
    assert_eq!(
        seen,
        [
            (TenantState::Active, amount(2, 2)),
            (TenantState::Suspended, amount(0, 0)),
            (TenantState::Unknown, amount(0, 0)),
        ]
    );
    fleet.admin.post("/tenants/bolt/resume", &json!({})).await?.ok()?;
    wait_for("a lease for the resumed tenant", SOON, async || {
        let answer = worker.ask("bolt", amount(1, 1), amount(1, 1)).await?;
        Ok((answer.state == TenantState::Active && !answer.granted.is_zero()).then_some(()))
    })
    .await
}

/// Moving the period that runs, by another time zone or another kind of period, and back, gives
/// nobody more than the capacity in any of them.
#[tokio::test]
async fn a_period_that_moves_admits_no_more() -> Result<()> {
    let fleet = control_planes(1).await?;
    let quota = |period: &str| [periodic("quota", "tokens", 100, json!(period))];
    fleet.tenant("acme", &quota("day"), &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    assert_eq!(worker.ask("acme", amount(60, 1), amount(60, 1)).await?.granted, amount(60, 1));
    // On the last day of a month, that day and the month have one end.
    let runs = async || {
        let bucket = bucket(&fleet, "acme", "quota").await?;
        anyhow::Ok(json!([bucket["period_start"], bucket["period_end"]]))
    };
    let moves = async |from: &serde_json::Value| {
        wait_for("another period", SOON, async || {
            let now = runs().await?;
            Ok((now != *from).then_some(now))
        })
        .await
    };
    let change_period = async |period: &str| {
        let plan = json!({ "currency": "USD", "limits": quota(period), "prices": [] });
        fleet.admin.put("/plans/acme-plan", &plan).await?.ok()
    };

    let utc = runs().await?;
    // Whatever the time is, midnight there is not midnight in UTC.
    let zone = json!({ "time_zone": "Asia/Kathmandu" });
    fleet.admin.patch("/tenants/acme", &zone).await?.ok()?;
    let there = moves(&utc).await?;
    // 60 of this day are gone; what Redis still had of the block strands.
    let rest = worker.drain("acme").await?;
    assert!((1..=40).contains(&rest), "{rest}");
    change_period("month").await?;
    let month = moves(&there).await?;
    assert_eq!(worker.drain("acme").await?, 0, "a month holds its days");
    change_period("day").await?;
    moves(&month).await?;
    assert_eq!(worker.drain("acme").await?, 0, "nothing is gained by going back");
    Ok(())
}
