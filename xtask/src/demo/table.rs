//! The live table: redrawn in place on a terminal, printed every few seconds elsewhere.

use std::{
    io::{IsTerminal, Write, stdout},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::tenants::Row;

/// Without a terminal a table is printed so often at most.
const PRINT_EVERY: Duration = Duration::from_millis(2500);

pub(super) struct Table {
    drawn: Option<Instant>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { drawn: None }
    }

    /// Whenever the last one was.
    pub(super) fn draw_last(&mut self, rows: &[Row]) -> Result<()> {
        if !stdout().is_terminal() {
            self.drawn = None;
        }
        self.draw(rows)
    }

    pub(super) fn draw(&mut self, rows: &[Row]) -> Result<()> {
        let mut out = stdout().lock();
        let lines = lines(rows);
        match self.drawn {
            Some(_) if out.is_terminal() => write!(out, "\x1b[{}A", lines.len())?,
            Some(drawn) if drawn.elapsed() < PRINT_EVERY => return Ok(()),
            _ => {}
        }
        for line in &lines {
            // Clears what a longer line left behind.
            writeln!(out, "{line}{}", if out.is_terminal() { "\x1b[K" } else { "" })?;
        }
        out.flush()?;
        self.drawn = Some(Instant::now());
        Ok(())
    }
}

fn lines(rows: &[Row]) -> Vec<String> {
    let head = ["tenant", "sent", "200", "401", "403", "429", "other", "left", "ledger"];
    let mut lines = vec![line(&head.map(str::to_owned))];
    lines.extend(rows.iter().map(|row| {
        let shown = [401, 403, 429].map(|status| row.counts.of(status));
        let other = row.counts.total() - row.admitted() - shown.iter().sum::<u64>();
        let known =
            |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        let ledger = row.is_tenant.then_some(row.ledger_tokens);
        line(&[
            row.tenant.to_owned(),
            row.counts.total().to_string(),
            row.admitted().to_string(),
            shown[0].to_string(),
            shown[1].to_string(),
            shown[2].to_string(),
            other.to_string(),
            known(row.remaining),
            known(ledger),
        ])
    }));
    lines.push(String::new());
    lines
}

/// Narrow, since a line that wraps can't be redrawn.
fn line(cells: &[String; 9]) -> String {
    let [tenant, numbers @ ..] = cells;
    let numbers: String = numbers.iter().map(|number| format!("{number:>8}")).collect();
    format!("  {tenant:<10}{numbers}")
}
