//! The store contracts as tests. Each rule of a contract is a *clause*: a function that checks the
//! rule on a store.
//!
//! An adapter runs all clauses against a real database:
//!
//! ```
//! use tower_keep_memory::MemoryStore;
//! use tower_keep_testkit::contract;
//!
//! # const _: &str = stringify!(
//! #[tokio::test(flavor = "multi_thread")]
//! # );
//! async fn my_store_keeps_every_clause() {
//!     let store = MemoryStore::new(); // connect to the database here
//!     contract::run_all(|| async { store.clone() }).await;
//! }
//! ```
//!
//! The closure is called once for each clause. It should return a clone of the same store, so that
//! all clauses share the connections of the store. Wrap a store that is not `Clone` in an `Arc`.
//! The store may already hold data, including the data of earlier clauses, because every clause
//! uses new ids and names. A clause panics if the store breaks the rule. Clauses spawn tasks, so
//! they need a tokio runtime. With several threads (`#[tokio::test(flavor = "multi_thread")]`), the
//! clauses about concurrency find more errors.
//!
//! A store that has only users, or only sessions, uses [`users::run_all`] or [`sessions::run_all`].
//! To run a single clause, call it by name, as in
//! `contract::sessions::an_expired_session_can_be_ended(store)`, or pass its name to
//! [`users::run`], [`sessions::run`] or [`logins::run`].

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

/// Lists the clauses of a contract in `CLAUSES`, and defines `run` and `run_all`.
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
        /// Panics if the store breaks a clause. The output names each clause before it runs.
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

/// How many tasks run concurrently in most clauses about concurrency.
const COMPETING_TASKS: usize = 50;

tokio::task_local! {
    /// The limit that [`with_contention_of`] sets.
    static MAX_TASKS: usize;
}

/// Runs clauses so that no clause runs more than `max` tasks concurrently. If `max` is less than 2,
/// the limit is 2.
///
/// Use it for a store in which concurrent writes of the same data wait for seconds, such as some
/// emulators:
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

/// Returns `wanted`, or the limit of [`with_contention_of`] if that is smaller.
fn allowed_tasks(wanted: usize) -> usize {
    MAX_TASKS.try_with(|max| wanted.min(*max)).unwrap_or(wanted)
}

/// Returns a new unique text that begins with `prefix`. It is unique even if several processes test
/// the same database.
fn unique_text(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one(count);
    format!("{prefix}-{random:016x}{count}")
}

/// Returns ids or names that stores may handle wrongly. Each of them begins with a [`unique_text`].
fn unusual_texts() -> Vec<String> {
    let long = "long".repeat(375);
    ["", " ", "a\0b", "🦀🦀", "'; DROP TABLE users; --", "%_\\", "佐藤", "{}[]:*?", &long]
        .into_iter()
        .map(|text| {
            let prefix = unique_text("");
            // The longest text has 1,500 bytes, including the prefix.
            format!("{prefix}{}", &text[..text.len().min(1_500 - prefix.len())])
        })
        .collect()
}

/// Returns texts of session details that stores may handle wrongly. The last text has the greatest
/// allowed length.
fn unusual_details() -> Vec<String> {
    // `{"a":""}` has eight bytes, and each crab has four.
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

/// Returns the current time. Clauses derive all times from it instead of from a fixed time, because
/// a store that drops expired records by itself would drop records from the past.
fn now() -> Timestamp {
    SystemClock.now().into()
}

/// Runs `wanted` tasks concurrently, or as many as [`with_contention_of`] allows, and returns all
/// results.
async fn run_concurrently<T, Fut>(wanted: usize, task: impl Fn(usize) -> Fut) -> Vec<T>
where
    T: Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    let tasks = allowed_tasks(wanted);
    let barrier = Arc::new(tokio::sync::Barrier::new(tasks));
    let handles: Vec<_> = (0..tasks)
        .map(|index| {
            let (barrier, task) = (Arc::clone(&barrier), task(index));
            tokio::spawn(async move {
                barrier.wait().await;
                task.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.await.expect("no task panics"));
    }
    results
}

/// Polls the future of a call for a while, and then drops the future. Each step polls for longer
/// than the step before. The last steps usually give the call enough time to finish.
async fn poll_then_drop<T, Fut: Future<Output = T>>(step: u32, call: Fut) {
    let mut call = Box::pin(call);
    // The first steps limit the number of polls instead of the time, because some stores finish a
    // call faster than the shortest time limit.
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

/// A clause calls [`poll_then_drop`] with each step below this number.
const DROP_STEPS: u32 = 12;

/// How many reads in a row must return the same result. Together, these reads take longer than one
/// write to a disk.
const EQUAL_READS: u32 = 10;

/// Repeats `read` until its result stays the same, and returns that result. The store may finish a
/// write a moment after the future of the call was dropped.
async fn wait_until_settled<T: PartialEq, Fut: Future<Output = T>>(read: impl Fn() -> Fut) -> T {
    let mut before = read().await;
    let mut equal_reads = 0;
    while equal_reads < EQUAL_READS {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let after = read().await;
        equal_reads = if before == after { equal_reads + 1 } else { 0 };
        before = after;
    }
    before
}
