//! `stoplog serve`: the broker as a process. One line on stdout when it is ready, events on stderr,
//! a drain on the first signal, the end at once on the second.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::level_filters::LevelFilter;

use super::config::{Sources, load};
use super::connection::Stop;
use super::failure::{CommandResult, Exit, Failure};
use super::output::Output;
use crate::broker::{Broker, OpenError, ShutdownMode};
use crate::config::{Config, Rooms};
use crate::server::{Server, StartError};
use crate::storage;
use crate::types::ErrorCode;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Directory of the log; made when it does not exist.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the native protocol; port 0 picks a free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Allow listening beyond loopback without authentication.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    sources: Sources,
    /// Drain when stdin closes: a child must not outlive whoever started it.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs the broker until it is told to stop.
pub fn run(args: &ServeArgs, out: &mut Output) -> CommandResult {
    let config = settings(args)?;
    start_events(&config);
    for name in &config.unknown_env {
        tracing::warn!(variable = %name, "is no setting and was ignored");
    }
    let threads = match config.rooms().runtime_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2),
        threads => threads,
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().build()?;
    let result = runtime.block_on(serve(args, &config, out));
    // After a drain nothing is left; after a second signal nothing is to be waited for.
    runtime.shutdown_background();
    result
}

fn settings(args: &ServeArgs) -> Result<Config, Failure> {
    let mut config = load(&args.sources)?;
    if let Some(dir) = &args.data {
        config.apply_flag("--data", "data.dir", dir.display().to_string())?;
    }
    if let Some(listen) = &args.listen {
        config.apply_flag("--listen", "native.listen", listen.clone())?;
    }
    if args.insecure {
        config.apply_flag("--insecure", "native.insecure", "true".to_owned())?;
    }
    if config.text("data.dir").is_empty() {
        let failure = Failure::usage("no data directory was given");
        return Err(failure.help("stoplog serve --data DIR, or data.dir in the file."));
    }
    Ok(config)
}

fn start_events(config: &Config) {
    let level = match config.text("log.level") {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    let events = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A subscriber that is set already belongs to whoever embeds us.
    let _ = match config.text("log.format") {
        "json" => events.json().try_init(),
        _ => events.try_init(),
    };
}

async fn serve(args: &ServeArgs, config: &Config, out: &mut Output) -> CommandResult {
    let mut stop = Stop::listen()?;
    raise_file_limit();
    let Rooms { broker, server, .. } = config.rooms();
    let broker = Broker::open(broker).await?;
    let server = match Server::start(broker.clone(), server).await {
        Ok(server) => server,
        Err(error) => {
            broker.shutdown(ShutdownMode::Graceful).await;
            return Err(error.into());
        }
    };
    for key in ["kafka.listen", "http.listen"] {
        if config.text(key) != "off" {
            tracing::warn!("{key} is set, but this version has no such listener");
        }
    }
    writeln!(out.writer(), "ready native={}", server.local_addr())?;
    out.flush()?;
    tokio::select! {
        // A signal first: left for later, it would count as the second.
        biased;
        _ = stop.asked() => (),
        () = stdin_closed(), if args.stop_with_stdin => (),
    }
    tracing::info!("draining; a second signal ends at once");
    let drain = async {
        server.shutdown(ShutdownMode::Graceful).await;
        broker.shutdown(ShutdownMode::Graceful).await;
    };
    tokio::select! {
        () = drain => Ok(()),
        failure = stop.asked() => Err(failure),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let code = match &error {
            OpenError::Storage(storage::OpenError::Locked) => ErrorCode::DataDirLocked,
            OpenError::Storage(storage::OpenError::Meta(_)) => ErrorCode::NotADataDir,
            OpenError::Storage(
                storage::OpenError::Missing(_) | storage::OpenError::Recovery { .. },
            )
            | OpenError::InternalLog { .. }
            | OpenError::CatalogMissing { .. } => ErrorCode::VerifyFailed,
            OpenError::Options(_) => ErrorCode::InvalidConfig,
            OpenError::Storage(storage::OpenError::Io(_)) => ErrorCode::LocalIo,
            OpenError::Storage(_) => ErrorCode::Internal,
        };
        let failure = Failure::new(code, error.to_string());
        match &error {
            OpenError::Storage(storage::OpenError::Io(cause)) => {
                failure.help(format!("Is the directory there and writable? ({})", cause.kind()))
            }
            _ => failure,
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        let code = match &error {
            StartError::AddressInUse { .. } => ErrorCode::AddressInUse,
            StartError::Insecure { .. } => ErrorCode::InsecureListen,
            StartError::Address { .. } | StartError::Listen { .. } => ErrorCode::InvalidConfig,
        };
        let failure = Failure::new(code, error.to_string());
        match code {
            ErrorCode::InvalidConfig => {
                failure.help("Choose another --listen HOST:PORT.").exit_with(Exit::Usage)
            }
            _ => failure,
        }
    }
}

/// Connections, segments and their maps each hold a descriptor; the usual soft limit of 1,024 is for
/// programs that use select(2).
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("the limit of {:?} open files stays: {error}", limit.current);
    }
}

/// A thread of its own reads, because a read of stdin cannot be called off: the runtime would wait
/// for it at the end.
async fn stdin_closed() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(count) if count > 0) {}
        sender.send(())
    });
    // A sender that is gone means the same.
    let _ = receiver.await;
}
