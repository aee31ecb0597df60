//! The emulator dies under load, and is started again with the data that it had written to the
//! disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_keep_datastore::DatastoreStore;
use tower_keep_testkit::FaultyStore;
use tower_keep_tests::AnyStore;
use tower_keep_tests::load::{Clients, Load};
use tower_keep_tests::nodes::Guesses;
use xtask::servers::{Kind, Server};

const CLIENTS: usize = 16;
/// This many of the clients are logged in before the load, and only read.
const READERS: usize = 8;
/// How long the emulator is down.
const DOWN: Duration = Duration::from_secs(4);
/// Every client must be served again this soon after the emulator responds again. A new emulator is
/// slow, and the machine may be busy with other work.
const RECOVERY: Duration = Duration::from_secs(8);
/// How long the load goes on after the emulator responds again.
const AFTERWARDS: Duration = Duration::from_secs(12);

fn start_server() -> Server {
    Server::start(Kind::Datastore).expect("an emulator")
}

async fn open(server: &Server) -> DatastoreStore {
    let builder = DatastoreStore::builder("datastore://load").with_emulator(server.url());
    builder.with_timeout(Duration::from_secs(5)).build().await.expect("a store")
}

/// An emulator that was started again.
struct Restarted {
    server: Server,
    /// When the test began to start the emulator again. Until then, the emulator was down.
    down_until: Instant,
    /// When the emulator responded again.
    back: Instant,
}

async fn start_and_wait(mut server: Server) -> Restarted {
    let restarted = tokio::task::spawn_blocking(move || {
        let down_until = Instant::now();
        server.start_and_wait().expect("the emulator starts again");
        Restarted { server, down_until, back: Instant::now() }
    });
    restarted.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_survive_a_restart_of_the_emulator_and_show_no_name() {
    let mut server = start_server();
    let watched = |store: DatastoreStore| FaultyStore::new(Arc::new(store) as Arc<dyn AnyStore>);
    let guesses = Guesses::make(watched(open(&server).await)).await;
    // When the emulator stops, it writes its data to the disk.
    server.stop();
    guesses.assert_absent_below(server.directory());
    let Restarted { server, .. } = start_and_wait(server).await;
    guesses.assert_still_counted(watched(open(&server).await)).await;
}

/// The emulator shuts down, and writes its data to the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_are_served_again_after_the_emulator_was_stopped_under_load() {
    let mut server = start_server();
    let load = Load::start(Arc::new(open(&server).await), CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    server.stop();
    let stopped = Instant::now();
    tokio::time::sleep(DOWN).await;
    let Restarted { server, down_until, back } = start_and_wait(server).await;
    tokio::time::sleep(AFTERWARDS).await;
    let recovery = load.stop().await.check_outage(stopped..down_until, back);
    assert!(recovery <= RECOVERY, "requests failed until {recovery:?} after the emulator was back");
    drop(server);
}

/// The killed emulator loses what it stored in the last seconds, so logins and logouts that the
/// site acknowledged before the kill may be lost. A session that was on the disk is not lost, and
/// neither is a login or logout that the site acknowledges after the emulator was started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_are_served_again_after_the_emulator_was_killed_under_load() {
    let mut server = start_server();
    let mut clients = Clients::new(Arc::new(open(&server).await), CLIENTS).await;
    clients.log_in(READERS).await;
    // When the emulator stops, it writes the users and the sessions to the disk.
    server.stop();
    server.start_and_wait().expect("the emulator starts again");
    let load = clients.start();
    tokio::time::sleep(RECOVERY).await;
    server.kill();
    let killed = Instant::now();
    tokio::time::sleep(DOWN).await;
    let Restarted { server, down_until, back } = start_and_wait(server).await;
    tokio::time::sleep(AFTERWARDS).await;
    let mut outcome = load.stop().await;
    for (number, log) in outcome.logs.iter_mut().enumerate() {
        let lost = std::mem::take(&mut log.contradictions);
        assert!(number >= READERS || lost.is_empty(), "{lost:?}");
        assert!(lost.iter().all(|lost| lost.acknowledged_at < down_until), "{lost:?}");
    }
    let recovery = outcome.check_outage(killed..down_until, back);
    assert!(recovery <= RECOVERY, "requests failed until {recovery:?} after the emulator was back");
    drop(server);
}
