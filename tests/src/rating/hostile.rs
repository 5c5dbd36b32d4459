//! Policies and requests that mean no good: whatever the control plane accepts, gateways survive.

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{books_are, is_everywhere, is_refused, marked};
use crate::harness::{Answer, Fleet, monthly};

/// The longest policy that there may be.
const MAX_BYTES: usize = 32 * 1024;

async fn fleet() -> Result<Fleet> {
    let fleet = Fleet::start().await?;
    for tenant in ["acme", "other"] {
        fleet.tenant(tenant, &[monthly(super::PLENTY)], &[]).await?;
    }
    Ok(fleet)
}

/// No VM was replaced, and none was lost.
async fn is_unharmed(fleet: &Fleet) -> Result<()> {
    let stats = fleet.stack.gateways[0].stats().await?;
    let harm = stats.iter().filter(|(name, _)| {
        name.ends_with("vm_reload_success") || name.ends_with("weir.lost_workers")
    });
    let harm: Vec<_> = harm.filter(|(_, count)| **count > 0).collect();
    ensure!(harm.is_empty(), "{harm:?}\n{}", fleet.stack.gateways[0].log()?);
    Ok(())
}

/// A policy as long as there may be, of many rules: the last one counts as the first.
#[tokio::test]
async fn a_policy_of_32_kib_rates() -> Result<()> {
    let fleet = fleet().await?;
    let mut rules = "default cost := 1\n".to_owned();
    let mut last = 0;
    while rules.len() < MAX_BYTES - 400 {
        last += 1;
        rules.push_str(&format!("cost := {} if input.path == \"/{last}\"\n", last + 1));
    }
    let version = fleet.rate_by_marked("long", &rules).await?;
    println!("{last} rules");
    for path in [1, last, 0] {
        ensure!(fleet.ask(0, "acme", &format!("/{path}")).await?.status == 200, "{path}");
    }
    books_are(&fleet, "acme", &[("default", version, 2 + last + 1 + 1, 3)]).await?;
    is_unharmed(&fleet).await
}

/// Makes rules that are so deep, or so long.
type Family = Box<dyn Fn(usize) -> String>;

/// What is deep or long in a text, as much as the control plane takes of it.
#[tokio::test]
async fn what_the_control_plane_accepts_gateways_compile() -> Result<()> {
    let fleet = fleet().await?;
    let chain = |rule: &str, count: usize| {
        (1..=count)
            .map(|n| rule.replace("$0", &(n - 1).to_string()).replace("$1", &n.to_string()))
            .collect::<String>()
    };
    let comprehension = |count: usize| {
        let (open, close): (String, String) =
            ((0..count).map(|n| format!("[x{n} | x{n} := ")).collect(), "]".repeat(count));
        format!("deep := {open}1{close}\n\ncost := 1 if count(deep) > 0")
    };
    let families: [(&str, Family); 10] = [
        ("parentheses", Box::new(|n| format!("cost := {}1{}", "(".repeat(n), ")".repeat(n)))),
        (
            "lists",
            Box::new(|n| {
                format!("deep := {}1{}\n\ncost := 1 if deep", "[".repeat(n), "]".repeat(n))
            }),
        ),
        (
            "objects",
            Box::new(|n| {
                format!("deep := {}1{}\n\ncost := 1 if deep", "{\"a\": ".repeat(n), "}".repeat(n))
            }),
        ),
        ("comprehensions", Box::new(comprehension)),
        ("sums", Box::new(|n| format!("cost := 1{}", " + 1".repeat(n)))),
        ("negations", Box::new(|n| format!("cost := 1 if {{ {}false }}", "not ".repeat(n)))),
        ("functions", Box::new(|n| format!("cost := {}1{}", "abs(".repeat(n), ")".repeat(n)))),
        ("rules", Box::new(move |n| format!("r0 := 1\n{}cost := r{n}", chain("r$1 := r$0\n", n)))),
        (
            "elses",
            Box::new(|n| {
                format!(
                    "cost := 1 if input.path == \"/x\"{}",
                    " else := 1 if input.method == \"X\"".repeat(n)
                )
            }),
        ),
        (
            "indexes",
            Box::new(|n| format!("cost := 1 if input.path{}\n\ncost := 1", "[0]".repeat(n))),
        ),
    ];
    for (name, text) in &families {
        let mut accepted = None;
        for size in [500, 127, 120, 100, 64, 32, 24, 17, 16, 15, 12, 8, 7, 4, 2, 1] {
            let mark = format!("{name}-{size}");
            if fleet.put_policy("main", &marked(&mark, &text(size))).await?.status == 200 {
                accepted = Some((size, mark));
                break;
            }
        }
        let (size, mark) = accepted.with_context(|| format!("no {name} are accepted"))?;
        println!("{size} {name}");
        fleet.choose(Some("main")).await?.ok()?;
        is_everywhere(&fleet, &mark).await?;
        let status = fleet.ask(0, "acme", "/").await?.status;
        ensure!([200, 503].contains(&status), "{size} {name}: {status}");
    }
    is_unharmed(&fleet).await
}

/// One request as these bytes; the whole answer.
async fn send(fleet: &Fleet, headers: &[u8]) -> Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", fleet.stack.gateways[0].port())).await?;
    socket.write_all(b"GET /raw HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n").await?;
    socket.write_all(headers).await?;
    socket.write_all(b"x-tenant-id: acme\r\n\r\n").await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Values of headers that a policy reads which are no UTF-8, very long, many of one name, or empty; and
/// names that no header has.
#[tokio::test]
async fn headers_of_any_kind_are_read() -> Result<()> {
    let fleet = fleet().await?;
    let rules = "default cost := 1

cost := 2 if input.headers[\"x-a\"] == \"\u{fffd}\u{fffd}x\"

cost := 4 if count(input.headers[\"x-a\"]) == 4096

cost := 8 if input.headers[\"x-a\"] == \"\"

cost := 16 if input.headers[\"x-a\"] == \"one\"

cost := 32 if input.headers[\":path\"] == \"/other\"

cost := 64 if input.headers[\"\"]

cost := 128 if input.headers[\"a b\\u0000\\r\\nc\"]

cost := 256 if input.headers[\"x-ü\"]";
    let version = fleet.rate_by_marked("headers", rules).await?;
    let long = format!("x-a: {}\r\n", "a".repeat(4_096));
    let many: String = (0..80).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let requests: [(&[u8], u64); 7] = [
        (b"x-a: \xff\xfex\r\n", 2),
        (long.as_bytes(), 4),
        (b"x-a:\r\n", 8),
        (b"x-a: one\r\nx-a: two\r\n", 16),
        (many.as_bytes(), 1),
        (b"x-a: \xf0\x9f\r\n", 1),
        (b"", 1),
    ];
    let mut tokens = 0;
    for (headers, cost) in requests {
        for _ in 0..4 {
            let answer = send(&fleet, headers).await?;
            let head: String = answer.chars().take(300).collect();
            ensure!(answer.starts_with("HTTP/1.1 200"), "{:?}: {head}", headers.get(..30));
            tokens += cost;
        }
    }
    // What is longer takes a policy too long to look at.
    let longer = format!("x-a: {}\r\n", "a".repeat(50_000));
    let answer = send(&fleet, longer.as_bytes()).await?;
    ensure!(answer.starts_with("HTTP/1.1 503") && answer.contains("policy_failed"), "{answer}");
    books_are(&fleet, "acme", &[("default", version, tokens, 28)]).await?;
    is_unharmed(&fleet).await
}

/// A client that has the policy run into its budget with each request, as each has a header of its own,
/// slows others down and stops nobody.
#[tokio::test]
async fn endless_decisions_stop_nobody() -> Result<()> {
    let fleet = fleet().await?;
    let rules = "numbers := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]

default cost := 1

cost := count([1 | numbers[_]; numbers[_]; numbers[_]; numbers[_]]) if input.headers[\"x-bomb\"]";
    let version = fleet.rate_by_marked("bomb", rules).await?;
    let bombs = async {
        let began = std::time::Instant::now();
        for number in 0..300 {
            let request = fleet.request(reqwest::Method::GET, "/").header("x-tenant-id", "acme");
            is_refused(&Answer::of(request.header("x-bomb", number)).await?, 503, "policy_failed")?;
        }
        println!("a decision that runs into its budget took {:?}", began.elapsed() / 300);
        anyhow::Ok(())
    };
    let others = async { fleet.drive("other", 4, 400).await };
    let (bombs, others) = tokio::join!(bombs, others);
    bombs?;
    let others = others?;
    ensure!(others.of(200) == 400, "{:?}", others.by_status());
    books_are(&fleet, "other", &[("default", version, 400, 400)]).await?;
    is_unharmed(&fleet).await
}
