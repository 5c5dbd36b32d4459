//! A private Postgres: one per test binary or demo, one database per stack.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};
use tempfile::TempDir;

use super::{port, process::Process, reaper};
use crate::command::run;

const START_WITHIN: Duration = Duration::from_secs(30);
/// The only role; everyone on 127.0.0.1 may be it.
const ROLE: &str = "weir";

pub struct Postgres {
    process: Process,
    bin: PathBuf,
    port: u16,
    data: TempDir,
}

impl Postgres {
    /// `bin` has `initdb`, `postgres` and `psql`.
    pub async fn start(bin: &Path) -> Result<Arc<Self>> {
        let account = unprivileged_account()?;
        // Not in the workspace: its path may be closed to the account.
        let data = tempfile::Builder::new().prefix("weir-postgres-").tempdir()?;
        reaper::folder(data.path())?;
        if let Some(account) = &account {
            chown(data.path(), Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
        }
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o700))?;
        run(as_account(Command::new(bin.join("initdb")), account.as_ref(), data.path())
            .args([
                "--auth=trust",
                "--username",
                ROLE,
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .arg("--pgdata")
            .arg(data.path()))?;

        let port = port::free()?;
        let program = bin.join("postgres");
        let folder = data.path().to_owned();
        // SIGQUIT: at once, but without leaving shared memory behind as SIGKILL does.
        let process = Process::new(
            "Postgres",
            data.path().join("postgres.log"),
            Signal::SIGQUIT,
            move || {
                let mut command = as_account(Command::new(&program), account.as_ref(), &folder);
                command.arg("-D").arg(&folder).args(["-p", &port.to_string()]);
                for setting in [
                    "listen_addresses=127.0.0.1",
                    "unix_socket_directories=",
                    "max_connections=300",
                ] {
                    command.args(["-c", setting]);
                }
                command
            },
        );
        let postgres = Self { process, bin: bin.to_owned(), port, data };
        postgres.restart().await?;
        Ok(Arc::new(postgres))
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Like `kill -9` on the server.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&self) -> Result<()> {
        self.process.end(Signal::SIGQUIT);
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let accepts = async || self.psql("postgres", "select 1").await.is_ok();
            match self.process.start_ready(START_WITHIN, accepts).await {
                // Killed, its sessions take a moment to notice, and until then it refuses to start.
                Err(_) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                done => return done,
            }
        }
    }

    /// A new, empty database.
    pub async fn create_database(self: &Arc<Self>) -> Result<Database> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("weir_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("create database {name}")).await?;
        Ok(Database { postgres: self.clone(), name })
    }

    /// Runs SQL with `psql`: rows by line, columns by `|`.
    async fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        command.arg(self.url_of(database)).env("PGCONNECT_TIMEOUT", "5");
        let output = tokio::task::spawn_blocking(move || run(&mut command)).await??;
        Ok(output.trim_end().to_owned())
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.process.end(Signal::SIGQUIT);
        reaper::folder_removed(self.data.path());
    }
}

/// One database of a [`Postgres`].
pub struct Database {
    pub postgres: Arc<Postgres>,
    name: String,
}

impl Database {
    pub fn url(&self) -> String {
        self.postgres.url_of(&self.name)
    }

    /// Runs SQL; rows by line, columns by `|`.
    pub async fn query(&self, sql: &str) -> Result<String> {
        self.postgres.psql(&self.name, sql).await
    }

    /// Runs the SQL in a file.
    pub async fn apply(&self, file: &Path) -> Result<()> {
        let sql = fs::read_to_string(file)?;
        self.query(&sql).await.map(drop).with_context(|| file.display().to_string())
    }
}

/// Postgres refuses to run as root: then it runs as `postgres`, else `nobody`.
fn unprivileged_account() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let find = |name| User::from_name(name).ok().flatten();
    let account = find("postgres").or_else(|| find("nobody"));
    account.map(Some).context(
        "Postgres does not run as root, and there is neither a user `postgres` nor `nobody`",
    )
}

fn as_account(mut command: Command, account: Option<&User>, folder: &Path) -> Command {
    if let Some(account) = account {
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    command.current_dir(folder).env("LC_ALL", "C");
    command
}
