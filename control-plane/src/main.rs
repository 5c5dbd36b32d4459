use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match weir::cli::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            weir::cli::print_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
