//! How the clauses of a contract are listed, and run by name.

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
pub(super) use clauses;
