//! The store contracts as tests: one function per clause.
//!
//! An adapter runs them all against the real thing:
//!
//! ```
//! use tower_keep_memory::MemoryStore;
//! use tower_keep_testkit::contract;
//!
//! # async fn example() {
//! let store = MemoryStore::new(); // connect to the database here
//! contract::run_all(|| async { store.clone() }).await;
//! // Or what the store has of it:
//! contract::sessions::run_all(|| async { store.clone() }).await;
//! # }
//! ```
//!
//! What the factory makes may hold data already, that of earlier clauses too: every clause uses ids
//! and names of its own. It is called once for each clause, and should hand out a clone of one
//! connection pool. A clause panics when the store breaks it. Clauses start tasks, so they need a
//! tokio runtime; with more than one thread they find more.
//!
//! A store of users alone, or of sessions alone, has [`users::run_all`] and [`sessions::run_all`].
//! A single clause is run by its name, `contract::sessions::touch_only_moves_forward(store)`, or by
//! [`users::run`], [`sessions::run`] and [`logins::run`].

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tower_keep_core::{Account, Clock, LoginStore, SystemClock, Timestamp, UserDirectory};

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

/// Lists the clauses of a contract, and runs them by their names.
macro_rules! clauses {
    ($($bound:path),+; $($clause:ident)*) => {
        /// The names of the clauses.
        pub const CLAUSES: &[&str] = &[$(stringify!($clause)),*];

        /// Runs the clause of this name.
        ///
        /// # Panics
        ///
        /// If the store breaks it, or if there is no such clause.
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
        /// If the store breaks one of them; the output names it.
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
    static MOST_TASKS: usize;
}

/// Runs clauses with no more than so many tasks that compete, at least two.
///
/// For a store that makes whoever writes the same thing wait for seconds, as an emulator may do:
///
/// ```
/// # use tower_keep_memory::MemoryStore;
/// # use tower_keep_testkit::contract;
/// # async fn example() {
/// let store = MemoryStore::new();
/// contract::with_contention_of(2, contract::run_all(|| async { store.clone() })).await;
/// # }
/// ```
pub async fn with_contention_of<F: Future>(most: usize, clauses: F) -> F::Output {
    MOST_TASKS.scope(most.max(2), clauses).await
}

/// So many tasks, or as many as are allowed.
fn tasks(wanted: usize) -> usize {
    MOST_TASKS.try_with(|most| wanted.min(*most)).unwrap_or(wanted)
}

/// Text that no other clause uses, in this process or another.
fn unique(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one(count);
    format!("{what}-{random:016x}{count}")
}

/// Text that stores stumble over, each made unique.
fn odd_texts() -> Vec<String> {
    let long = "long".repeat(375);
    ["", " ", "a\0b", "🦀🦀", "'; DROP TABLE users; --", "%_\\", "佐藤", "{}[]:*?", &long]
        .into_iter()
        .map(|odd| {
            let unique = unique("");
            // The longest has 1,500 bytes in all.
            format!("{unique}{}", &odd[..odd.len().min(1_500 - unique.len())])
        })
        .collect()
}

/// The present moment, so that stores which expire records by themselves don't drop them.
fn now() -> Timestamp {
    SystemClock.now().into()
}

/// Starts as many [`tasks`] at once, and waits for all of their answers.
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
    let mut answers = Vec::new();
    for task in started {
        answers.push(task.await.expect("a call of the store does not panic"));
    }
    answers
}

/// Polls a call for a while and drops it; each step a little longer, until it is done in time.
async fn interrupted<T, Fut: Future<Output = T>>(step: u32, call: Fut) {
    let mut call = Box::pin(call);
    // The first steps count polls, which also catches stores that never wait for long.
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
        let patience = Duration::from_micros(50 << (step - 4).min(10));
        let _ = tokio::time::timeout(patience, call).await;
    }
}

/// How many steps [`interrupted`] takes.
const STEPS: u32 = 12;

/// For so many looks in a row nothing changes any more: longer than a disk takes for one write.
const LOOKS: u32 = 10;

/// What an interrupted call leaves may arrive a moment later; waits until it stays the same.
async fn settled<T: PartialEq, Fut: Future<Output = T>>(look: impl Fn() -> Fut) -> T {
    let mut before = look().await;
    let mut same = 0;
    while same < LOOKS {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let after = look().await;
        same = if before == after { same + 1 } else { 0 };
        before = after;
    }
    before
}
