//! The table on the terminal and the JSON line.

use serde_json::{Map, Value, json};

use super::{edge::Edge, stats::Spread};

pub(super) fn print(edge: &Edge) {
    println!("\nCPU of the gateway and of whatever it asks, per request\n");
    let bare = edge.rows.first().map_or(1.0, |row| Spread::of(&row.cpu_us()).median);
    println!(
        "  {:<43}{:>8}{:>15}{:>9}{:>8}{:>9}{:>9}{:>9}",
        "", "µs", "min – max", "of asked", "× bare", "req/s", "p50 µs", "p99 µs"
    );
    for row in &edge.rows {
        let cpu = Spread::of(&row.cpu_us());
        println!(
            "  {:<43}{:>8.1}{:>15}{:>9}{:>8.2}{:>9}{:>9}{:>9}",
            row.explained,
            cpu.median,
            format!("{:.1} – {:.1}", cpu.min, cpu.max),
            if row.asked_us == 0.0 { "-".to_owned() } else { format!("{:.1}", row.asked_us) },
            cpu.median / bare,
            shown(row.rps().median),
            shown(row.latency_us(500) as f64),
            shown(row.latency_us(990) as f64),
        );
    }
    println!("\nRatios, round by round\n");
    for (name, ratio) in &edge.ratios {
        println!(
            "  {name:<43}{:>8.3}{:>15}",
            ratio.median,
            format!("{:.3} – {:.3}", ratio.min, ratio.max)
        );
    }
    println!("  {:<43}{:>8.5}", "waited_share", edge.steady.waited_share);
    println!("  {:<43}{:>8.3}\n", "calls_per_1000", edge.steady.calls_per_1000);
}

/// `-` for what was not measured.
fn shown(value: f64) -> String {
    if value == 0.0 { "-".to_owned() } else { format!("{value:.0}") }
}

pub(super) fn json(edge: &Edge) -> Value {
    let rows: Map<String, Value> = edge
        .rows
        .iter()
        .map(|row| {
            let cpu = Spread::of(&row.cpu_us());
            let value = json!({
                "cpu_us": cpu.median, "cpu_us_min": cpu.min, "cpu_us_max": cpu.max,
                "asked_us": row.asked_us,
                "rps": row.rps().median,
                "p50_us": row.latency_us(500), "p99_us": row.latency_us(990),
            });
            (row.name.to_owned(), value)
        })
        .collect();
    let median = |(name, ratio): (&&str, &Spread)| ((*name).to_owned(), json!(ratio.median));
    let mut ratios: Map<String, Value> = edge.ratios.iter().map(median).collect();
    ratios.insert("waited_share".to_owned(), json!(edge.steady.waited_share));
    ratios.insert("calls_per_1000".to_owned(), json!(edge.steady.calls_per_1000));
    json!({ "edge": rows, "ratios": ratios })
}
