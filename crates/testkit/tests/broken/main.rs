//! Every clause of the contracts fails on a store that breaks the clause.

mod counters;
mod logins;
mod sessions;
mod store;
mod users;

use std::sync::Arc;

use tower_keep_testkit::contract;

use self::store::BrokenStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_fails_on_a_store_that_breaks_the_clause() {
    // Each clause is expected to panic. Without a hook, the messages would fill the output.
    std::panic::set_hook(Box::new(|_| {}));
    let passed = [
        passed(contract::users::CLAUSES, contract::users::run).await,
        passed(contract::sessions::CLAUSES, contract::sessions::run).await,
        passed(contract::logins::CLAUSES, contract::logins::run).await,
        passed(contract::counters::CLAUSES, contract::counters::run).await,
    ];
    let _ = std::panic::take_hook();
    let passed = passed.concat();
    assert_eq!(passed, [""; 0], "these clauses pass on stores that should break them");
}

/// Runs each of these clauses on a store that breaks it, and returns the clauses that pass.
async fn passed<Fut: Future<Output = ()> + Send + 'static>(
    clauses: &'static [&'static str],
    run: impl Fn(&'static str, Arc<BrokenStore>) -> Fut,
) -> Vec<&'static str> {
    let mut passed = Vec::new();
    for clause in clauses {
        let run = tokio::spawn(run(clause, BrokenStore::that_breaks(clause)));
        passed.extend(run.await.is_ok().then_some(*clause));
    }
    passed
}
