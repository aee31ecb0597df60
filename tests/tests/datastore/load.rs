//! The emulator dies under load, and comes back with what it had written to the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_keep_datastore::DatastoreStore;
use tower_keep_tests::load::{Clients, Load};
use xtask::servers::{Kind, Server};

const CLIENTS: usize = 16;
/// How many of the clients are logged in beforehand, and only read.
const READERS: usize = 8;
const DOWN: Duration = Duration::from_secs(4);
/// How soon all clients are served again. The emulator is slow at first, and so is a machine that
/// is busy with other work.
const RECOVERY: Duration = Duration::from_secs(8);
const AFTERWARDS: Duration = Duration::from_secs(12);

fn server() -> Server {
    Server::start(Kind::Datastore).expect("an emulator")
}

async fn open(server: &Server) -> DatastoreStore {
    let builder = DatastoreStore::builder("datastore://load").with_emulator(server.url());
    builder.with_timeout(Duration::from_secs(5)).build().await.expect("a store")
}

/// Starts the emulator again. Returns until when it was down, and when it was back.
async fn back(mut server: Server) -> (Server, Instant, Instant) {
    let back = tokio::task::spawn_blocking(move || {
        let until = Instant::now();
        server.start_again().expect("it comes back");
        (server, until, Instant::now())
    });
    back.await.expect("it comes back")
}

/// Clients log in, look and log out, while the emulator shuts down and writes its data to the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_ends_under_load_and_comes_back() {
    let mut server = server();
    let load = Load::start(Arc::new(open(&server).await), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    server.stop();
    let ended = Instant::now();
    tokio::time::sleep(DOWN).await;
    let (server, until, back) = back(server).await;
    tokio::time::sleep(AFTERWARDS).await;
    let late = load.stop().await.served_but_for(ended..until, back);
    assert!(late <= RECOVERY, "the last failed {late:?} after the emulator was back");
    drop(server);
}

/// The emulator forgets what it stored in the last seconds, so a login or logout that was confirmed
/// before may be lost. But no client whose session was on the disk is turned away, and no login or
/// logout that is confirmed afterwards is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_killed_under_load_and_comes_back() {
    let mut server = server();
    let mut clients = Clients::new(Arc::new(open(&server).await), CLIENTS).await;
    clients.log_in(READERS).await;
    // After it was stopped once, it has users and sessions on its disk.
    server.stop();
    server.start_again().expect("it comes back");
    let load = clients.start();
    tokio::time::sleep(RECOVERY).await;
    server.kill();
    let killed = Instant::now();
    tokio::time::sleep(DOWN).await;
    let (server, until, back) = back(server).await;
    tokio::time::sleep(AFTERWARDS).await;
    let mut outcome = load.stop().await;
    for (number, seen) in outcome.0.iter_mut().enumerate() {
        let lost = std::mem::take(&mut seen.contradictions);
        assert!(number >= READERS || lost.is_empty(), "{lost:?}");
        assert!(lost.iter().all(|lost| lost.confirmed < until), "{lost:?}");
    }
    let late = outcome.served_but_for(killed..until, back);
    assert!(late <= RECOVERY, "the last failed {late:?} after the emulator was back");
    drop(server);
}
