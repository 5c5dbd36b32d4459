//! What strikes at random, one variant each.

use std::{
    mem::discriminant,
    time::{Duration, Instant},
};

use anyhow::Result;
use xtask::stack::Network;

use super::{Soak, customers::COSTS};
use crate::{
    fleet::clocks::{HOUR_S, Host, set_clock},
    leases::Numbers,
    takeover,
};

/// A fault, or a change that an operator makes at a bad moment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    ControlPlaneKilled {
        replica: usize,
    },
    /// It comes back empty.
    RedisKilled,
    /// It is emptied, and goes on.
    RedisFlushed,
    PostgresKilled,
    NetworkFails {
        gateway: usize,
        network: Network,
    },
    GatewayKilled {
        gateway: usize,
    },
    /// The VM of one of its workers.
    WorkerTraps {
        gateway: usize,
    },
    /// And is set right again.
    ClockJumps {
        host: Host,
        ahead_s: i64,
    },
    /// A top-up, or a cut.
    LimitAdjusted {
        by: i64,
    },
    TenantSuspended,
    /// And changed back.
    PlanChanged,
}

/// A gateway that was killed, or one of its workers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    pub(super) gateway: usize,
    /// Whether only a worker was, in whose stead Envoy answers 503.
    pub(super) is_worker: bool,
    /// When it was asked what it had not stored yet, and that, in requests.
    pub(super) asked: Instant,
    pub(super) unstored: u64,
    /// Between these two it was killed.
    pub(super) struck: Instant,
    pub(super) killed: Instant,
    pub(super) back: Option<Instant>,
}

impl Fault {
    /// A fault, and how long it lasts, unless what it needs to be mended is broken then.
    pub(super) fn at_random(numbers: &mut Numbers) -> (Self, Duration) {
        let gateway = index(numbers, COSTS.len());
        // A loss of Redis empties continuous limits for 10 s, so it is rarer.
        let fault = match numbers.below(22) {
            0..=1 => Self::ControlPlaneKilled { replica: index(numbers, 2) },
            2 => Self::RedisKilled,
            3 => Self::RedisFlushed,
            4 => Self::PostgresKilled,
            5..=10 => Self::NetworkFails { gateway, network: network_at_random(numbers) },
            11..=12 => Self::GatewayKilled { gateway },
            13 => Self::LimitAdjusted { by: 100 + numbers.below(300).cast_signed() },
            14 => Self::LimitAdjusted { by: -100 - numbers.below(200).cast_signed() },
            15 => Self::TenantSuspended,
            18..=19 => Self::WorkerTraps { gateway },
            20..=21 => Self::ClockJumps {
                host: [Host::Redis, Host::ControlPlane, Host::Gateway][index(numbers, 3)],
                ahead_s: [-HOUR_S, HOUR_S][index(numbers, 2)],
            },
            _ => Self::PlanChanged,
        };
        let ms = match fault {
            Self::RedisFlushed | Self::LimitAdjusted { .. } | Self::WorkerTraps { .. } => 0,
            // Long enough that no lease from before may live, and some longer.
            Self::TenantSuspended => 6_000 + numbers.below(3_000),
            _ => 500 + numbers.below(3_500),
        };
        (fault, Duration::from_millis(ms))
    }

    /// Whether `other` may not strike while this lasts.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ControlPlaneKilled { replica }, Self::ControlPlaneKilled { replica: other }) => {
                replica == other
            }
            (
                Self::NetworkFails { gateway, .. } | Self::GatewayKilled { gateway },
                Self::NetworkFails { gateway: other, .. } | Self::GatewayKilled { gateway: other },
            )
            | (Self::GatewayKilled { gateway }, Self::WorkerTraps { gateway: other }) => {
                gateway == other
            }
            (Self::RedisKilled, Self::RedisFlushed) => true,
            _ => discriminant(self) == discriminant(other),
        }
    }

    /// Whether this can't be mended before `other` is.
    pub(super) fn needs(&self, other: &Self) -> bool {
        let databases = matches!(other, Self::RedisKilled | Self::PostgresKilled);
        match self {
            Self::ControlPlaneKilled { .. } => databases,
            Self::TenantSuspended | Self::PlanChanged => {
                databases || matches!(other, Self::ControlPlaneKilled { replica: 0 })
            }
            _ => false,
        }
    }

    pub(super) async fn strike(self, soak: &mut Soak) -> Result<()> {
        let stack = &soak.fleet.stack;
        match self {
            Self::ControlPlaneKilled { replica } => stack.control_planes[replica].kill(),
            Self::RedisKilled => stack.redis.kill(),
            Self::RedisFlushed => drop(stack.redis.command("FLUSHALL").await?),
            Self::PostgresKilled => stack.database.postgres.kill(),
            Self::NetworkFails { gateway, network } => stack.links[gateway].set(network),
            Self::GatewayKilled { gateway } => {
                let kill = kill(soak, gateway).await?;
                soak.kills.push(kill);
            }
            Self::WorkerTraps { gateway } => {
                let kill = trap(soak, gateway).await?;
                soak.kills.push(kill);
            }
            Self::ClockJumps { host, ahead_s } => set_clock(&soak.fleet, host, ahead_s)?,
            Self::LimitAdjusted { by } => soak.customers.adjust(&soak.fleet, by).await,
            Self::TenantSuspended => soak.customers.suspend(&soak.fleet).await,
            Self::PlanChanged => soak.customers.slow_down(&soak.fleet).await,
        }
        Ok(())
    }

    pub(super) async fn mend(self, soak: &mut Soak) -> Result<()> {
        let stack = &soak.fleet.stack;
        match self {
            Self::ControlPlaneKilled { replica } => stack.control_planes[replica].restart().await,
            Self::RedisKilled => stack.redis.restart().await,
            Self::PostgresKilled => stack.database.postgres.restart().await,
            Self::NetworkFails { gateway, .. } => {
                stack.links[gateway].set(Network::Up);
                Ok(())
            }
            Self::GatewayKilled { gateway } => {
                stack.gateways[gateway].restart().await?;
                let kills = soak.kills.iter_mut().rev();
                let last = kills.into_iter().find(|kill| kill.gateway == gateway);
                last.into_iter().for_each(|kill| kill.back = Some(Instant::now()));
                Ok(())
            }
            Self::TenantSuspended => soak.customers.resume(&soak.fleet).await,
            Self::PlanChanged => soak.customers.speed_up(&soak.fleet).await,
            Self::ClockJumps { host, .. } => set_clock(&soak.fleet, host, 0),
            Self::RedisFlushed | Self::LimitAdjusted { .. } | Self::WorkerTraps { .. } => Ok(()),
        }
    }
}

fn index(numbers: &mut Numbers, below: usize) -> usize {
    usize::try_from(numbers.below(below as u64)).unwrap_or(0)
}

fn network_at_random(numbers: &mut Numbers) -> Network {
    match numbers.below(6) {
        0 => Network::Cut,
        1 => Network::BlackHole,
        2 => Network::Delay(Duration::from_millis(50 + numbers.below(1_500))),
        3 => Network::HalfClose,
        4 => Network::EndlessAnswers,
        _ => Network::DropAnswers { path: "/", one_in: 1 + numbers.below(3) },
    }
}

async fn kill(soak: &Soak, gateway: usize) -> Result<Kill> {
    let (asked, unstored) = unstored(soak, gateway).await?;
    let moment = Instant::now();
    soak.fleet.stack.gateways[gateway].kill();
    let (struck, killed) = (moment, moment);
    Ok(Kill { gateway, is_worker: false, asked, unstored, struck, killed, back: None })
}

async fn trap(soak: &Soak, gateway: usize) -> Result<Kill> {
    let (asked, unstored) = unstored(soak, gateway).await?;
    let trap = takeover::spring(&soak.fleet, gateway, "any").await?;
    let (struck, killed) = (trap.sent, trap.answered);
    Ok(Kill { gateway, is_worker: true, asked, unstored, struck, killed, back: Some(killed) })
}

/// What a gateway has admitted and not stored, in requests, and when it was asked.
async fn unstored(soak: &Soak, gateway: usize) -> Result<(Instant, u64)> {
    let asked = Instant::now();
    let stats = soak.fleet.stack.gateways[gateway].stats().await?;
    let stat = |name: &str| stats.get(name).copied().unwrap_or(0);
    let admitted = stat("wasmcustom.weir.admitted");
    Ok((asked, admitted.saturating_sub(stat("wasmcustom.weir.stored"))))
}
