//! `cargo bench -p tower-keep-benches --bench sessions`: a million live sessions in memory. What one of
//! them takes, and how long logins wait while others are purged.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tower_keep::{SessionStore, Timestamp};
use tower_keep_benches::run;
use tower_keep_core::{NewLogin, SessionKey, SessionRecord, UserId};
use tower_keep_memory::MemorySessions;

const LIVE: u64 = 1_000_000;
/// Besides, so many that have expired.
const EXPIRED: u64 = 500_000;
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// A session of a user of its own, as a login makes it.
fn record(number: u64, expires: Timestamp) -> SessionRecord {
    // SplitMix64: keys are hashes, and spread like these.
    let mixed = |salt: u64| {
        let mixed = (number + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).to_be_bytes()
    };
    let mut key = [0; 32];
    for (chunk, salt) in key.chunks_mut(8).zip(0_u64..) {
        chunk.copy_from_slice(&mixed(salt << 40));
    }
    SessionRecord {
        key: SessionKey::new(key),
        user: UserId::from(number),
        generation: 0,
        rotated_at: None,
        seen_at: None,
        salt: [7; 16],
        created: NOW,
        session_started: NOW,
        last_seen: NOW,
        remember_expires: Some(expires),
        remember_seconds: 30 * 24 * 3_600,
        expires,
        address: "192.0.2.7".parse().ok(),
        user_agent: AGENT.into(),
        method: "password".into(),
        ended: None,
    }
}

fn log_in(store: &MemorySessions, number: u64, expires: Timestamp) {
    let record = record(number, expires);
    let login = NewLogin { record: &record, replacing: &[], ended_until: expires, limit: None };
    black_box(run(store.create(&login))).expect("memory works");
}

/// How long each of many logins takes, the slowest last.
fn logins(store: &MemorySessions, from: u64, while_true: impl Fn() -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    while while_true() && times.len() < 200_000 {
        let start = Instant::now();
        log_in(store, from + times.len() as u64, NOW.plus(3_600));
        times.push(start.elapsed());
    }
    times.sort();
    times
}

fn show(what: &str, times: &[Duration]) {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} logins, median {:?}, 99.9 % within {:?}, slowest {:?}",
        times.len(),
        at(0.5),
        at(0.999),
        at(1.0)
    );
}

fn main() {
    let store = MemorySessions::new();
    let held = allocation_counter::measure(|| {
        for number in 0..LIVE {
            // Spread over a month, as real ones are.
            log_in(&store, number, NOW.plus(60 + (number * 2_654_435_761 % 2_592_000) as u32));
        }
    });
    println!("{LIVE} sessions: {} bytes each", held.bytes_current / LIVE as i64);
    for number in 0..EXPIRED {
        log_in(&store, LIVE + number, NOW.minus(1 + (number % 3_600) as u32));
    }
    show("alone", &logins(&store, 10 * LIVE, || true));
    let purge = std::thread::spawn({
        let store = store.clone();
        move || {
            let (start, mut purged) = (Instant::now(), 0);
            loop {
                match run(store.purge(NOW, 500)).expect("memory works") {
                    0 => break,
                    some => purged += some,
                }
            }
            (purged, start.elapsed())
        }
    });
    show("while others are purged", &logins(&store, 20 * LIVE, || !purge.is_finished()));
    let (purged, took) = purge.join().expect("no panic");
    println!("{purged} purged in {took:?}");
    let start = Instant::now();
    let listed = run(store.list(&UserId::from(7), NOW, 10)).expect("memory works");
    println!("{} session of one user listed in {:?}", listed.len(), start.elapsed());
}
