//! A gateway that has lost a worker asks for another lease.

use anyhow::Result;
use serde_json::json;

use super::{Worker, amount, bucket, control_planes};
use crate::harness::{SOON, continuous, wait_for};

/// What the gateway spent and gives back is counted first. The rest of the old lease is what the lost
/// worker had drawn: it counts as held until the old lease ends, however busy the gateway is, and is
/// never dealt again.
#[tokio::test]
async fn a_fresh_lease_leaves_behind_what_nobody_accounts_for() -> Result<()> {
    let fleet = control_planes(1).await?;
    // Next to no refill.
    fleet.tenant("acme", &[continuous("rate", "tokens", 100, 1, 3_600_000)], &[]).await?;
    let (worker, other) = (Worker::new(&fleet, "g", "w1"), Worker::new(&fleet, "g", "w2"));
    let lease = worker.ask("acme", amount(10, 1), amount(40, 1)).await?;
    assert_eq!(lease.granted, amount(40, 1));

    let mut ask = worker.next("acme", amount(1, 1), amount(8, 1));
    ask.stamp.clone_from(&lease.stamp);
    (ask.spent, ask.refund, ask.fresh) = (amount(5, 0), amount(20, 0), true);
    let fresh = worker.send(&ask).await?;
    assert_ne!(fresh.stamp, lease.stamp);
    assert_eq!(fresh.granted, amount(8, 1));
    let held =
        || async { Ok::<_, anyhow::Error>(bucket(&fleet, "acme", "rate").await?["held"].clone()) };
    assert_eq!(held().await?, json!({ "g": 15 + 8 }));

    let again = worker.send(&ask).await?;
    assert_eq!((again.stamp, again.granted), (fresh.stamp.clone(), fresh.granted));
    // Another worker has not heard of it yet: one fresh lease is enough.
    let mut behind = other.next("acme", amount(0, 0), amount(0, 0));
    (behind.stamp, behind.refund, behind.fresh) = (lease.stamp, amount(5, 0), true);
    assert_eq!(other.send(&behind).await?.stamp, fresh.stamp);
    // What it gives back is of the old lease: no bucket gets it, and nobody holds it any more.
    assert_eq!(held().await?, json!({ "g": 10 + 8 }));

    wait_for("the old lease to end", SOON, async || {
        // Renewed all the time.
        let mut renew = worker.next("acme", amount(0, 0), amount(0, 0));
        renew.stamp.clone_from(&fresh.stamp);
        worker.send(&renew).await?;
        Ok((held().await? == json!({ "g": 8 })).then_some(()))
    })
    .await?;
    assert_eq!(bucket(&fleet, "acme", "rate").await?["remaining"], 100 - 5 - 15);
    Ok(())
}
