//! The store contracts as tests: one function per clause.
//!
//! An adapter runs all of them against a real database:
//!
//! ```
//! use tower_keep_memory::MemoryStore;
//! use tower_keep_testkit::contract;
//!
//! # async fn example() {
//! let store = MemoryStore::new(); // connect to the database here
//! contract::run_all(|| async { store.clone() }).await;
//! // Or run only one of the contracts:
//! contract::sessions::run_all(|| async { store.clone() }).await;
//! # }
//! ```
//!
//! The store that the factory returns may already hold data, including that of earlier clauses,
//! because every clause uses its own ids and names. The factory is called once for each clause, and
//! should return a clone of one connection pool. A clause panics if the store breaks it. Clauses
//! spawn tasks, so they need a tokio runtime. They find more errors with more than one thread.
//!
//! A store that has only users, or only sessions, uses [`users::run_all`] or [`sessions::run_all`].
//! To run a single clause, call it by name, as in
//! `contract::sessions::touch_only_moves_forward(store)`, or pass its name to [`users::run`],
//! [`sessions::run`] or [`logins::run`].

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tower_keep_core::{
    Account, Clock, LoginStore, SessionDetails, SystemClock, Timestamp, UserDirectory,
};

/// Runs every clause of every contract, one after the other.
pub async fn run_all<S, F, Fut>(factory: F)
where
    S: UserDirectory<User = Account> + LoginStore + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    users::run_all(&factory).await;
    sessions::run_all(&factory).await;
    logins::run_all(&factory).await;
}

/// Lists the clauses of a contract, and defines functions that run them.
macro_rules! clauses {
    ($($bound:path),+; $($clause:ident)*) => {
        /// The names of the clauses.
        pub const CLAUSES: &[&str] = &[$(stringify!($clause)),*];

        /// Runs the clause with this name.
        ///
        /// # Panics
        ///
        /// Panics if the store breaks the clause, or if there is no clause with this name.
        pub async fn run<S>(clause: &str, store: std::sync::Arc<S>)
        where
            S: $($bound +)+ 'static,
        {
            match clause {
                $(stringify!($clause) => $clause(store).await,)*
                unknown => panic!("there is no clause {unknown:?}"),
            }
        }

        /// Runs every clause, one after the other.
        ///
        /// # Panics
        ///
        /// Panics if the store breaks a clause. The output names the clause.
        pub async fn run_all<S, F, Fut>(factory: F)
        where
            S: $($bound +)+ 'static,
            F: Fn() -> Fut,
            Fut: Future<Output = S>,
        {
            for clause in CLAUSES {
                println!("{}::{clause}", module_path!());
                run(clause, std::sync::Arc::new(factory().await)).await;
            }
        }
    };
}

pub mod logins;
pub mod sessions;
pub mod users;

/// How many tasks compete in the clauses about concurrency.
const TASKS: usize = 50;

tokio::task_local! {
    static MAX_TASKS: usize;
}

/// Runs clauses with at most `max` tasks that compete, but at least two.
///
/// This is for a store that makes writers of the same data wait for seconds, as an emulator may do:
///
/// ```
/// # use tower_keep_memory::MemoryStore;
/// # use tower_keep_testkit::contract;
/// # async fn example() {
/// let store = MemoryStore::new();
/// contract::with_contention_of(2, contract::run_all(|| async { store.clone() })).await;
/// # }
/// ```
pub async fn with_contention_of<F: Future>(max: usize, clauses: F) -> F::Output {
    MAX_TASKS.scope(max.max(2), clauses).await
}

/// Returns `wanted`, limited to the number of tasks that are allowed.
fn tasks(wanted: usize) -> usize {
    MAX_TASKS.try_with(|max| wanted.min(*max)).unwrap_or(wanted)
}

/// Returns a text that no other clause uses, in this process or another.
fn unique(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one(count);
    format!("{what}-{random:016x}{count}")
}

/// Returns unusual texts that stores may handle wrongly, each made unique.
fn odd_texts() -> Vec<String> {
    let long = "long".repeat(375);
    ["", " ", "a\0b", "🦀🦀", "'; DROP TABLE users; --", "%_\\", "佐藤", "{}[]:*?", &long]
        .into_iter()
        .map(|odd| {
            let unique = unique("");
            // The longest text has 1,500 bytes in total.
            format!("{unique}{}", &odd[..odd.len().min(1_500 - unique.len())])
        })
        .collect()
}

/// Returns texts of session details that stores may handle wrongly, up to the longest.
fn odd_details() -> Vec<String> {
    // Eight bytes around characters of four bytes.
    let longest = format!(r#"{{"a":"{}"}}"#, "🦀".repeat((SessionDetails::MAX_BYTES - 8) / 4));
    let mut texts = [
        "{}",
        r#"{"quotes":"\"'`","backslashes":"\\ \\\\ \\\" \/ \n \u0041 \ud83e\udd80"}"#,
        r#" { "b" : [1.0, 1e2 ,-0] ,"a":  null , "b":{ }, "" : "" }  "#,
        "{\"text\":\"é e\u{301} 佐藤 🦀 \u{feff}\u{2028}\u{10ffff}\"}",
        "'); DROP TABLE sessions; -- %_ ?1 $1 :a {0} [",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push(longest);
    texts
}

/// Returns the current time, so that stores that expire records by themselves don't drop them.
fn now() -> Timestamp {
    SystemClock.now().into()
}

/// Starts this many [`tasks`] concurrently, waits for them, and returns all results.
async fn compete<T, Fut>(tasks: usize, task: impl Fn(usize) -> Fut) -> Vec<T>
where
    T: Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    let tasks = self::tasks(tasks);
    let start = Arc::new(tokio::sync::Barrier::new(tasks));
    let started: Vec<_> = (0..tasks)
        .map(|index| {
            let (start, task) = (Arc::clone(&start), task(index));
            tokio::spawn(async move {
                start.wait().await;
                task.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in started {
        results.push(task.await.expect("a call of the store does not panic"));
    }
    results
}

/// Polls a call for a while and then drops it. The time is longer with each step, until it is
/// enough for the call to finish.
async fn interrupted<T, Fut: Future<Output = T>>(step: u32, call: Fut) {
    let mut call = Box::pin(call);
    // The first steps count polls, which also interrupts stores that never wait for long.
    if step < 4 {
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            match call.as_mut().poll(cx) {
                std::task::Poll::Pending if polls <= step => {
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                _ => std::task::Poll::Ready(()),
            }
        })
        .await;
    } else {
        let timeout = Duration::from_micros(50 << (step - 4).min(10));
        let _ = tokio::time::timeout(timeout, call).await;
    }
}

/// The number of steps of [`interrupted`].
const STEPS: u32 = 12;

/// How many reads in a row must return the same. They take longer than a disk takes for one write.
const EQUAL_READS: u32 = 10;

/// Waits until the result of `read` stays the same, because what an interrupted call wrote may
/// arrive a moment later.
async fn settled<T: PartialEq, Fut: Future<Output = T>>(read: impl Fn() -> Fut) -> T {
    let mut before = read().await;
    let mut same = 0;
    while same < EQUAL_READS {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let after = read().await;
        same = if before == after { same + 1 } else { 0 };
        before = after;
    }
    before
}
