//! Connections from the first to the last: accepting, loading beside it, draining at a signal, ending with the engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use super::app::App;
use crate::engine::{Session, SessionOptions};
use crate::{Error, Result};

/// Connections at once; more wait until one is closed.
const CONNECTIONS: usize = 1024;

/// How long a request's head may take to arrive, and how long a connection may lie idle.
const HEAD: Duration = Duration::from_secs(60);

/// How long replies may take to be packed and read when all is drawn.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Serves until a signal, and then until all that was taken is done; or until the engine fails, which is an error.
pub async fn run(
    app: Arc<App>,
    router: Router,
    options: SessionOptions,
    listening: impl FnOnce(SocketAddr),
    ready: impl FnOnce(&Session),
) -> Result<()> {
    let address = SocketAddr::new(app.options.host, app.options.port);
    let failed = |error| Error::io("listen at", address.to_string())(error);
    let mut signals = signals()?;
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    listening(listener.local_addr().map_err(failed)?);

    let model = app.model.clone();
    let mut loading = Some(spawn_blocking(move || Session::start(&model, &options)));
    let mut ready = Some(ready);
    let mut ending: Option<JoinHandle<Result<()>>> = None;
    let mut draining = false;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    let ended = loop {
        tokio::select! {
            (stream, slot) = accept(&listener, &slots) => connect(stream, slot, &router, &connections),
            loaded = wait(&mut loading) => {
                let session = Arc::new(loaded?);
                if let Some(ready) = ready.take() {
                    ready(&session);
                }
                app.ready(session.clone());
                ending = Some(spawn_blocking(move || session.wait_ended()));
            }
            ended = wait(&mut ending) => break ended,
            signal = signals.recv() => {
                let again = std::mem::replace(&mut draining, true);
                match app.drain() {
                    // Whoever asks twice does not want to wait.
                    Some(session) if again => drop(spawn_blocking(move || session.close())),
                    Some(session) if signal.is_some() => drop(spawn_blocking(move || session.drain())),
                    _ => return Ok(()),
                }
            }
        }
    };
    drop(listener);
    // Replies that are done may still be on their way to slow readers; a signal does not wait for these.
    tokio::select! {
        _ = tokio::time::timeout(LAST_WORDS, connections.shutdown()) => {}
        Some(()) = signals.recv() => {}
    }
    ended
}

/// The result of a task, once; pending for ever where there is none.
async fn wait<T>(task: &mut Option<JoinHandle<T>>) -> T {
    let Some(running) = task else { return std::future::pending().await };
    let done = running.await;
    *task = None;
    match done {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let slot = slots.clone().acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            // The client is gone again, or the process has too many files open: neither is for ever.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn connect(stream: TcpStream, slot: OwnedSemaphorePermit, router: &Router, connections: &GracefulShutdown) {
    // Events are small and wanted at once.
    stream.set_nodelay(true).ok();
    let service = TowerToHyperService::new(router.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // An error is the client's end of the connection, and nobody's business here.
        connection.await.ok();
        drop(slot);
    });
}

/// Signals that ask the server to end.
fn signals() -> Result<mpsc::Receiver<()>> {
    let (send, receive) = mpsc::channel(4);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut signal = signal(kind).map_err(Error::io("listen for", "signals"))?;
            let send = send.clone();
            tokio::spawn(async move { while signal.recv().await.is_some() && send.send(()).await.is_ok() {} });
        }
    }
    #[cfg(not(unix))]
    tokio::spawn(async move { while tokio::signal::ctrl_c().await.is_ok() && send.send(()).await.is_ok() {} });
    Ok(receive)
}
