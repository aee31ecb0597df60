//! `cargo bench -p tower-keep-benches --bench sessions` measures a million live sessions in memory:
//! how many bytes one session takes, and how long logins take while expired sessions are purged.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tower_keep::clock::Timestamp;
use tower_keep::store::SessionStore;
use tower_keep_bench_cases::records::{NOW, record};
use tower_keep_bench_cases::run;
use tower_keep_core::{NewLogin, UserId};
use tower_keep_memory::MemorySessions;

/// The number of live sessions.
const LIVE: u64 = 1_000_000;
/// The number of further sessions, which have expired.
const EXPIRED: u64 = 500_000;

fn log_in(store: &MemorySessions, number: u64, expires: Timestamp) {
    let mut record = record(number, number);
    record.expires = expires;
    let login = NewLogin::new(&record, expires);
    black_box(run(store.create(&login))).expect("a store in memory does not fail");
}

/// Returns how long each of many logins takes, the fastest first. Stops after 200,000 logins, or
/// when `must_continue` returns false.
fn time_logins(
    store: &MemorySessions,
    first_number: u64,
    must_continue: impl Fn() -> bool,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while must_continue() && times.len() < 200_000 {
        let start = Instant::now();
        log_in(store, first_number + times.len() as u64, NOW.plus(3_600));
        times.push(start.elapsed());
    }
    times.sort();
    times
}

fn print_times(label: &str, times: &[Duration]) {
    let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{label}: {} logins, median {:?}, 99.9 % within {:?}, slowest {:?}",
        times.len(),
        quantile(0.5),
        quantile(0.999),
        quantile(1.0)
    );
}

fn main() {
    let store = MemorySessions::new();
    let allocated = allocation_counter::measure(|| {
        for number in 0..LIVE {
            // The expiry times are spread over a month, as those of real sessions are.
            log_in(&store, number, NOW.plus(60 + (number * 2_654_435_761 % 2_592_000) as u32));
        }
    });
    println!("{LIVE} sessions: {} bytes each", allocated.bytes_current / LIVE as i64);
    for number in 0..EXPIRED {
        log_in(&store, LIVE + number, NOW.minus(1 + (number % 3_600) as u32));
    }
    print_times("alone", &time_logins(&store, 10 * LIVE, || true));
    let purge = std::thread::spawn({
        let store = store.clone();
        move || {
            let (start, mut purged) = (Instant::now(), 0);
            loop {
                match run(store.purge(NOW, 500)).expect("a store in memory does not fail") {
                    0 => break,
                    count => purged += count,
                }
            }
            (purged, start.elapsed())
        }
    });
    print_times(
        "while sessions are purged",
        &time_logins(&store, 20 * LIVE, || !purge.is_finished()),
    );
    let (purged, took) = purge.join().expect("no panic");
    println!("{purged} sessions purged in {took:?}");
    let start = Instant::now();
    let listed =
        run(store.list(&UserId::from(7), NOW, 10)).expect("a store in memory does not fail");
    println!("{} session of one user listed in {:?}", listed.len(), start.elapsed());
}
