use std::time::Instant;

use anyhow::ensure;
use axum::{Router, extract::State};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;

/// Long enough to call something lost.
const LOST_AFTER: Duration = Duration::from_millis(300);

/// A control plane that counts its calls, behind a link.
struct Linked {
    link: Link,
    calls: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Linked {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let calls = Arc::new(AtomicU64::new(0));
        let count = |State(calls): State<Arc<AtomicU64>>| async move {
            calls.fetch_add(1, Ordering::SeqCst);
            "done"
        };
        let router = Router::new().fallback(count).with_state(Arc::clone(&calls));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { link: Link::start(&[port]).await?, calls, server })
    }

    async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(("127.0.0.1", self.link.ports()[0])).await?)
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What comes back from a call to `/leases` on this connection, so far and within [`LOST_AFTER`];
/// `None` when the connection ended or was reset.
async fn call(connection: &mut TcpStream) -> Option<String> {
    let request = b"POST /leases HTTP/1.1\r\nhost: weir\r\ncontent-length: 0\r\n\r\n";
    connection.write_all(request).await.ok()?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        match timeout(LOST_AFTER, connection.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(length)) => answer.extend_from_slice(&chunk[..length]),
            Err(_) => break,
        }
        if answer.ends_with(b"done") {
            break;
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn is_whole(answer: &Option<String>) -> bool {
    answer.as_ref().is_some_and(|answer| answer.ends_with("done"))
}

#[tokio::test]
async fn a_cut_ends_connections_until_it_heals() -> Result<()> {
    let linked = Linked::start().await?;
    let mut connection = linked.connect().await?;
    ensure!(is_whole(&call(&mut connection).await));
    ensure!(is_whole(&call(&mut connection).await), "the connection stays");
    linked.link.set(Network::Cut);
    ensure!(call(&mut connection).await.is_none());
    ensure!(call(&mut linked.connect().await?).await.is_none());
    linked.link.set(Network::Up);
    ensure!(is_whole(&call(&mut linked.connect().await?).await));
    ensure!(linked.calls() == 3, "{}", linked.calls());
    Ok(())
}

#[tokio::test]
async fn a_black_hole_answers_nothing_and_leaves_idle_connections_alone() -> Result<()> {
    let linked = Linked::start().await?;
    let (mut used, mut idle) = (linked.connect().await?, linked.connect().await?);
    ensure!(is_whole(&call(&mut used).await) && is_whole(&call(&mut idle).await));
    linked.link.set(Network::BlackHole);
    let mut new = linked.connect().await?;
    ensure!(call(&mut used).await.as_deref() == Some(""));
    ensure!(call(&mut new).await.as_deref() == Some(""));
    linked.link.set(Network::Up);
    ensure!(call(&mut used).await.is_none(), "what it lost never comes");
    ensure!(call(&mut new).await.is_none(), "what it lost never comes");
    ensure!(is_whole(&call(&mut idle).await));
    ensure!(linked.calls() == 3 && linked.link.struck() == 2, "{}", linked.link.struck());
    Ok(())
}

#[tokio::test]
async fn what_is_delayed_arrives_though_its_caller_has_left() -> Result<()> {
    let linked = Linked::start().await?;
    let delay = Duration::from_millis(100);
    linked.link.set(Network::Delay(delay));
    let mut connection = linked.connect().await?;
    let sent = Instant::now();
    ensure!(is_whole(&call(&mut connection).await));
    ensure!(sent.elapsed() >= 2 * delay, "{:?}", sent.elapsed());
    connection.write_all(b"POST /late HTTP/1.1\r\nhost: weir\r\n\r\n").await?;
    let gives_up = timeout(delay / 2, connection.read_u8()).await;
    ensure!(gives_up.is_err() && linked.calls() == 1);
    drop(connection);
    crate::stack::wait_for("the late call", Duration::from_secs(5), async || {
        Ok((linked.calls() == 2).then_some(()))
    })
    .await
}

#[tokio::test]
async fn an_endless_answer_lacks_its_end() -> Result<()> {
    let linked = Linked::start().await?;
    linked.link.set(Network::EndlessAnswers);
    let mut connection = linked.connect().await?;
    let answer = call(&mut connection).await.unwrap_or_default();
    ensure!(answer.ends_with("don"), "{answer}");
    linked.link.set(Network::Up);
    ensure!(call(&mut connection).await.is_none());
    Ok(())
}

#[tokio::test]
async fn dropped_answers_are_of_calls_that_were_carried_out() -> Result<()> {
    let linked = Linked::start().await?;
    linked.link.set(Network::DropAnswers { path: "/leases", one_in: 2 });
    let mut answered = 0;
    for _ in 0..10 {
        answered += u64::from(is_whole(&call(&mut linked.connect().await?).await));
    }
    ensure!(answered == 5 && linked.calls() == 10, "{answered} of {}", linked.calls());
    linked.link.set(Network::DropAnswers { path: "/usage", one_in: 1 });
    ensure!(is_whole(&call(&mut linked.connect().await?).await), "another path");
    Ok(())
}

#[tokio::test]
async fn after_a_half_close_the_control_plane_sees_the_end() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let link = Link::start(&[listener.local_addr()?.port()]).await?;
    link.set(Network::HalfClose);
    let mut gateway = TcpStream::connect(("127.0.0.1", link.ports()[0])).await?;
    gateway.write_all(b"POST / HTTP/1.1").await?;
    let (mut control_plane, _) = listener.accept().await?;
    let mut heard = String::new();
    control_plane.read_to_string(&mut heard).await?;
    ensure!(heard == "POST / HTTP/1.1");
    control_plane.write_all(b"answer").await?;
    drop(control_plane);
    gateway.read_to_string(&mut heard).await?;
    ensure!(heard.ends_with("answer"), "the other way is open");
    Ok(())
}

#[tokio::test]
async fn with_the_link_its_connections_end() -> Result<()> {
    let linked = Linked::start().await?;
    let mut connection = linked.connect().await?;
    ensure!(is_whole(&call(&mut connection).await));
    drop(linked);
    ensure!(call(&mut connection).await.is_none());
    Ok(())
}
