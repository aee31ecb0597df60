//! Concurrent tasks: how many a clause runs, and how they start together.

use std::sync::Arc;

/// How many tasks run concurrently in most clauses about concurrency.
pub(super) const COMPETING_TASKS: usize = 50;

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
pub(super) fn allowed_tasks(wanted: usize) -> usize {
    MAX_TASKS.try_with(|max| wanted.min(*max)).unwrap_or(wanted)
}

/// Runs `wanted` tasks concurrently, or as many as [`with_contention_of`] allows, and returns all
/// results.
pub(super) async fn run_concurrently<T, Fut>(wanted: usize, task: impl Fn(usize) -> Fut) -> Vec<T>
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
