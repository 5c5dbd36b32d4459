//! The script's arithmetic in Redis is that of the domain, to the last token.

use anyhow::Result;
use redis::Value;
use weir_domain::{
    bucket::{self, Level, Rate},
    limit::MAX_INTERVAL_MS,
    quantity::Quantity,
};

use super::{Numbers, control_planes};

const ARITHMETIC: &str = include_str!("../../../control-plane/src/lease/script/arithmetic.lua");

/// ARGV: level, fraction, at, amount, interval, ceiling, now; need, want, available, gateways.
const CALL: &str = "
local n = {}
for index, argument in ipairs(ARGV) do n[index] = tonumber(argument) end
local bucket = { level = n[1], fraction = n[2], at = n[3], amount = n[4], interval = n[5] }
fill(bucket, n[6], n[7])
return { text(bucket.level), text(bucket.fraction), text(bucket.at), text(fair(n[8], n[9], n[10], n[11])) }";

struct Case {
    level: Level,
    rate: Rate,
    capacity: Quantity,
    held: Quantity,
    now_ms: i64,
    need: Quantity,
    want: Quantity,
    available: i64,
    gateways: u32,
}

/// Of any size up to `max`, small ones as often as large ones, and its very end now and then.
fn any(numbers: &mut Numbers, max: u64) -> u64 {
    if numbers.below(8) == 0 {
        return max - numbers.below(3).min(max);
    }
    let bits = numbers.below(u64::from(64 - max.leading_zeros()) + 1);
    numbers.below((1u64 << bits).min(max) + 1)
}

fn case(numbers: &mut Numbers) -> Case {
    let quantity = |value| Quantity::clamped(value);
    let interval_ms = any(numbers, MAX_INTERVAL_MS).max(1);
    let at_ms = i64::try_from(any(numbers, 1 << 42)).unwrap();
    let capacity = any(numbers, Quantity::MAX.get()).max(1);
    let level = i64::try_from(any(numbers, capacity)).unwrap();
    // A debt, where it is paid, is paid exactly up to 2^53 with the capacity.
    let debt = numbers.below(4) == 0 && capacity < 1 << 52;
    let need = any(numbers, Quantity::MAX.get());
    Case {
        level: Level {
            level: if debt { -(level % (1 << 52)) } else { level },
            fraction: any(numbers, interval_ms - 1),
            at_ms,
        },
        rate: Rate { amount: quantity(any(numbers, Quantity::MAX.get()).max(1)), interval_ms },
        capacity: quantity(capacity),
        held: quantity(any(numbers, capacity)),
        now_ms: at_ms + i64::try_from(any(numbers, 1 << 36)).unwrap() - 1_000,
        need: quantity(need),
        want: quantity(need.saturating_add(any(numbers, Quantity::MAX.get()))),
        available: i64::try_from(need + any(numbers, Quantity::MAX.get() - need)).unwrap(),
        gateways: u32::try_from(1 + numbers.below(1_000)).unwrap(),
    }
}

#[tokio::test]
async fn the_script_counts_as_the_domain_does() -> Result<()> {
    let fleet = control_planes(0).await?;
    let client = redis::Client::open(fleet.stack.redis.url())?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let script = format!("{ARITHMETIC}{CALL}");
    let mut numbers = Numbers(1);
    for _ in 0..50 {
        let cases: Vec<Case> = (0..200).map(|_| case(&mut numbers)).collect();
        let mut pipeline = redis::pipe();
        for case in &cases {
            let ceiling = case.capacity.saturating_sub(case.held);
            pipeline.cmd("EVAL").arg(&script).arg(0);
            pipeline.arg(case.level.level).arg(case.level.fraction).arg(case.level.at_ms);
            pipeline.arg(case.rate.amount.get()).arg(case.rate.interval_ms).arg(ceiling.get());
            pipeline.arg(case.now_ms).arg(case.need.get()).arg(case.want.get());
            pipeline.arg(case.available).arg(case.gateways);
        }
        let answers: Vec<Value> = pipeline.query_async(&mut redis).await?;
        for (case, answer) in cases.iter().zip(answers) {
            let got: Vec<i64> = redis::from_redis_value(answer)?;
            let level = case.level.refilled(case.rate, case.capacity, case.held, case.now_ms);
            let fair = bucket::grant(case.need, case.want, case.available, case.gateways);
            let expected = [
                level.level,
                i64::try_from(level.fraction)?,
                level.at_ms,
                i64::try_from(fair.unwrap_or_default().get())?,
            ];
            assert_eq!(
                got, expected,
                "{:?} at {:?}, {} of {}, now {}",
                case.level, case.rate, case.held, case.capacity, case.now_ms
            );
        }
    }
    Ok(())
}
