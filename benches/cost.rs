//! `cargo bench -p tower-keep-benches --bench cost` prints how much time each case adds to the bare
//! router, one line for each case.
//!
//! A shared machine is slow at times, which distorts criterion's mean. So the cases take turns for
//! many rounds, and only the fastest batch of requests of each case counts.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use tower::Service;
use tower_keep_bench_cases::{BATCH, CaseRunner, RequestTemplate, send, time_batch};
use tower_keep_benches::run_cases;

/// The number of turns of each case.
const ROUNDS: usize = 1_000;
/// The number of batches in one turn.
const BATCHES: usize = 30;

struct Case {
    name: String,
    time_batch: Box<dyn Fn() -> Duration>,
    /// How long the fastest batch took.
    fastest: Duration,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl CaseRunner for Cases {
    fn run_case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        let request = request.clone();
        let time_batch = Box::new(move || time_batch(&service, &request));
        self.0.push(Case { name: name.into(), time_batch, fastest: Duration::MAX });
    }
}

fn main() {
    let mut cases = Cases::default();
    run_cases(&mut cases);
    for _ in 0..ROUNDS {
        for case in &mut cases.0 {
            let fastest_of_turn = (0..BATCHES).map(|_| (case.time_batch)()).min();
            case.fastest = case.fastest.min(fastest_of_turn.unwrap_or(Duration::MAX));
        }
    }
    let bare = cases.0[0].fastest.as_nanos() as f64;
    for case in &cases.0 {
        let fastest = case.fastest.as_nanos() as f64;
        let per_request = |nanoseconds: f64| nanoseconds / f64::from(BATCH);
        println!(
            "{}: {:.0} ns, {:+.0} ns over bare",
            case.name,
            per_request(fastest),
            per_request(fastest - bare)
        );
    }
}
