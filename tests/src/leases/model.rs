//! The whole script in Redis is the domain's model, answer by answer, over random interleavings of asks,
//! repeated and late calls, refunds, claims, adjustments, ends, periods and losses.

mod both;

use anyhow::{Context, Result, ensure};
use weir_domain::{
    lease::{Answer, Released},
    protocol::LeaseAsk,
    quantity::Quantity,
};

use self::both::{Both, GATEWAYS, LIMITS, PERIOD_MS, WORKERS};
use super::{Numbers, amount, control_planes};

/// Between two steps, in µs at most.
const PAUSES: [u64; 12] = [
    20_000,
    20_000,
    20_000,
    20_000,
    20_000,
    300_000,
    300_000,
    300_000,
    300_000,
    11_000_000,
    70_000_000,
    700_000_000,
];

impl Both {
    async fn step(&mut self, numbers: &mut Numbers) -> Result<()> {
        match numbers.below(40) {
            0..9 => {
                let most = PAUSES[usize::try_from(numbers.below(12))?];
                self.now_us += i64::try_from(numbers.below(most))?;
                Ok(())
            }
            9..34 => self.ask(numbers).await,
            34 => self.adjust(numbers).await,
            35 | 36 => {
                let (index, amount) =
                    ([1, 3][numbers.below(2) as usize], numbers.below(60) as i64 - 20);
                let left = numbers.below(100);
                self.feed(numbers, index, amount, left).await
            }
            37 => self.lose_all(numbers).await,
            38 => self.lose_bucket(numbers.below(4) as usize).await,
            _ => {
                let gateway = numbers.below(GATEWAYS).to_string();
                self.delete(&[self.key(&format!("calls:{gateway}"))]).await?;
                self.model.lose_calls(&gateway);
                Ok(())
            }
        }
    }

    /// The next call of a worker, the last one again, or one before it.
    fn next_ask(&mut self, numbers: &mut Numbers, worker: usize, gateway: usize) -> LeaseAsk {
        if let Some(last) = &self.asked[worker]
            && numbers.below(5) == 0
        {
            let older = numbers.below(4) == 0 && last.call > 1;
            return LeaseAsk { call: last.call - u64::from(older), ..last.clone() };
        }
        self.calls += 1;
        let stamps = &self.stamps[gateway];
        let rare = |numbers: &mut Numbers, most| {
            if numbers.below(3) == 0 { numbers.below(most) } else { 0 }
        };
        let stamp = stamps
            [stamps.len() - 1 - usize::try_from(rare(numbers, 3)).unwrap().min(stamps.len() - 1)]
        .clone();
        // Now and then a large need, that others undercut.
        let large = numbers.below(6) == 0;
        let need = if large {
            amount(30 + numbers.below(32), numbers.below(42))
        } else {
            amount(numbers.below(4), numbers.below(2))
        };
        let ask = LeaseAsk {
            tenant: self.tenant.clone(),
            call: self.calls,
            stamp,
            need,
            want: need.saturating_add(amount(numbers.below(80), numbers.below(20))),
            spent: amount(numbers.below(30), numbers.below(10)),
            refund: amount(rare(numbers, 20), rare(numbers, 5)),
            owe: if numbers.below(12) == 0 { amount(numbers.below(50), 1) } else { amount(0, 0) },
            fresh: numbers.below(10) == 0,
        };
        self.asked[worker] = Some(ask.clone());
        ask
    }

    async fn ask(&mut self, numbers: &mut Numbers) -> Result<()> {
        let worker = usize::try_from(numbers.below(GATEWAYS * WORKERS))?;
        let gateway = worker / usize::try_from(WORKERS)?;
        let ask = self.next_ask(numbers, worker, gateway);
        let claims = numbers.below(6) > 0;
        let (gateway_name, worker_name) = (gateway.to_string(), worker.to_string());
        let mut more = vec![
            self.base(),
            gateway_name.clone(),
            worker_name.clone(),
            ask.call.to_string(),
            ask.stamp.clone(),
        ];
        for part in [ask.need, ask.want, ask.spent, ask.refund, ask.owe] {
            more.extend([part.tokens.to_string(), part.requests.to_string()]);
        }
        more.push(u8::from(ask.fresh).to_string());
        let operation = if claims { "ask" } else { "take" };
        let (mut got, _) = self.run(operation, &[0, 1, 2, 3], ("", ""), &more).await?;
        if got[0] == "period" {
            self.period_start_ms = self.now_ms() / PERIOD_MS * PERIOD_MS;
            self.model.settle(self.now_ms());
            self.model.turn_period(&self.base(), self.ends_ms());
            return Ok(());
        }
        let answer = self.model.ask(self.now_ms(), (&gateway_name, &worker_name), &ask, claims);
        let expected = self.expected(&answer);
        if got[0] == "claim" {
            // Of limits that need none the script says what would be welcome.
            for wish in got[2..].chunks_mut(3).filter(|wish| wish[0] == "0") {
                wish.fill("0".to_owned());
            }
        }
        ensure!(
            got == expected,
            "{ask:?} claims {claims}:\nthe script {got:?}\nthe model  {expected:?}"
        );
        match answer {
            Answer::Decided(decided) => self.stamps[gateway].push(decided.stamp),
            Answer::Claim(wishes) => {
                for (index, wish) in wishes.into_iter().enumerate() {
                    let Some((least, welcome)) = wish else { continue };
                    let block = [0, least, welcome][usize::try_from(numbers.below(3))?];
                    let left = numbers.below(2) * numbers.below(100);
                    self.feed(numbers, index, block, left).await?;
                }
            }
            Answer::Unfed => {}
        }
        Ok(())
    }

    async fn feed(
        &mut self,
        numbers: &mut Numbers,
        index: usize,
        amount: i64,
        unclaimed: u64,
    ) -> Result<()> {
        // In any order, as if some were late, lost or taken back.
        let released = (numbers.below(5) > 0).then_some(Released {
            claimed: amount.max(0) + i64::try_from(numbers.below(200))?,
            is_settled: numbers.below(4) == 0,
        });
        let mut more = vec![amount.to_string(), unclaimed.to_string()];
        more.push(released.map_or_else(String::new, |it| it.claimed.to_string()));
        let settled = released.is_some_and(|it| it.is_settled);
        more.push(if settled { "settled" } else { "" }.to_owned());
        let (got, _) = self.run("feed", &[index], ("", ""), &more).await?;
        if got[0] == "fed" {
            let (now_ms, left) = (self.now_ms(), Quantity::clamped(unclaimed));
            let taken = self.model.feed(now_ms, index, amount, left, released);
            ensure!(got[2] == taken.to_string(), "{got:?}, and the model took {taken}");
        }
        Ok(())
    }

    async fn adjust(&mut self, numbers: &mut Numbers) -> Result<()> {
        let index = [0, 2][usize::try_from(numbers.below(2))?];
        let amount = i64::try_from(numbers.below(60))? - 30;
        let (got, _) = self.run("adjust", &[index], ("", ""), &[amount.to_string()]).await?;
        self.model.adjust(self.now_ms(), index, amount);
        let mut expected = vec!["adjusted".to_owned(), self.now_ms().to_string()];
        expected.extend(self.state(&[index]));
        ensure!(got == expected, "{amount}:\nthe script {got:?}\nthe model  {expected:?}");
        Ok(())
    }

    async fn delete(&mut self, keys: &[String]) -> Result<()> {
        Ok(redis::cmd("DEL").arg(keys).query_async(&mut self.redis).await?)
    }

    /// Another Redis process, all keys, or the hash that the others are nothing without.
    async fn lose_all(&mut self, numbers: &mut Numbers) -> Result<()> {
        let mut keys = vec![self.key("gateways")];
        match numbers.below(3) {
            0 => (self.epoch, keys) = (self.epoch + 1, Vec::new()),
            1 => {
                keys.extend(LIMITS.map(|limit| self.key(&format!("bucket:{}", limit.0))));
                keys.extend((0..GATEWAYS).map(|gateway| self.key(&format!("calls:{gateway}"))));
            }
            _ => {}
        }
        if !keys.is_empty() {
            self.delete(&keys).await?;
        }
        let mut home = String::new();
        for index in self.continuous() {
            (_, home) = self.run("adjust", &[index], ("", "lost"), &["0".to_owned()]).await?;
        }
        self.model.lose(self.now_ms(), Self::leases_of(&home)?);
        self.model.base = self.base();
        Ok(())
    }

    async fn lose_bucket(&mut self, index: usize) -> Result<()> {
        self.delete(&[self.key(&format!("bucket:{}", LIMITS[index].0))]).await?;
        if LIMITS[index].1 == "c" {
            self.run("adjust", &[index], ("", ""), &["0".to_owned()]).await?;
        }
        self.model.lose_bucket(self.now_ms(), index);
        Ok(())
    }
}

#[tokio::test]
async fn the_script_decides_as_the_model_does() -> Result<()> {
    let fleet = control_planes(0).await?;
    let client = redis::Client::open(fleet.stack.redis.url())?;
    let redis = client.get_multiplexed_async_connection().await?;
    // Not before the real time: keys with an end must not have ended.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut decided = 0;
    for run in 0..40 {
        let mut numbers = Numbers(run);
        let mut both = Both::start(&redis, run, i64::try_from(now.as_micros())?).await?;
        for step in 0..150 {
            both.step(&mut numbers).await.with_context(|| format!("run {run}, step {step}"))?;
        }
        decided += both.stamps.iter().map(Vec::len).sum::<usize>();
    }
    ensure!(decided > 1_000, "{decided} asks were decided");
    Ok(())
}
