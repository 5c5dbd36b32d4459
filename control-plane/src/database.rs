//! Postgres: connecting and migrating. SQL stands in the modules that use it.

use std::time::Duration;

use sqlx::{
    Connection, Executor, PgConnection, PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use thiserror::Error;

use crate::{config::Config, problem::ApiError};

/// A process that hangs in a transaction, or is cut off from the network in one, lets go of its locks in
/// about a minute. Nothing here is idle in a transaction for longer than it takes to compute an invoice.
const SESSION: &str = "set idle_in_transaction_session_timeout = '1min';
     set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3";

#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error("database_url is not a Postgres address such as postgres://user:password@host/name")]
    Address(#[source] sqlx::Error),
    #[error("database_url must begin with postgres:// or postgresql://")]
    Scheme,
    #[error("cannot connect to Postgres at {host}:{port}")]
    Connect { host: String, port: u16, source: sqlx::Error },
    #[error(
        "the database has the schema of a newer version of Weir (migration {0}); start that one, or restore a backup from before it"
    )]
    Newer(i64),
    #[error("cannot bring the database to this version's schema")]
    Migrate(#[from] MigrateError),
}

/// A pool of connections, opened when they are needed: Postgres may be down at this moment.
pub async fn connect(config: &Config) -> Result<PgPool, DatabaseError> {
    let url = config.database_url.reveal();
    let options: PgConnectOptions = url.parse().map_err(DatabaseError::Address)?;
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(DatabaseError::Scheme);
    }
    Ok(PgPoolOptions::new()
        .max_connections(config.database_connections)
        .acquire_timeout(Duration::from_secs(5))
        // Not in the startup packet, where connection poolers refuse what they don't know.
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute(SESSION).await.map(drop) })
        })
        .connect_lazy_with(options.application_name("weir")))
}

/// Applies what is missing of `migrations/`. Replicas that do so at once wait for each other.
pub async fn migrate(db: &PgPool) -> Result<(), DatabaseError> {
    let Err(error) = sqlx::migrate!("./migrations").run(db).await else { return Ok(()) };
    if let MigrateError::VersionMissing(version) = error {
        return Err(DatabaseError::Newer(version));
    }
    // The pool says only that it waited too long; one more attempt says what for.
    let options = db.connect_options();
    match PgConnection::connect_with(&options).await {
        Err(source) => {
            let (host, port) = (options.get_host().to_owned(), options.get_port());
            Err(DatabaseError::Connect { host, port, source })
        }
        Ok(_) => Err(error.into()),
    }
}

/// What the caller is told when a statement failed: `problem` where it broke `constraint` (a name in
/// `migrations/`), else what the error itself says.
pub fn on_constraint(
    error: sqlx::Error,
    constraint: &str,
    problem: impl FnOnce() -> ApiError,
) -> ApiError {
    match &error {
        sqlx::Error::Database(cause) if cause.constraint() == Some(constraint) => problem(),
        _ => error.into(),
    }
}
