//! `cargo bench -p tower-keep-benches --bench cost` prints how much time each case adds to the bare
//! router, one line for each case.
//!
//! A shared machine is slow at times, which distorts criterion's mean. So the cases take turns for
//! many rounds, and only the fastest few requests of each case count.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use tower::Service;
use tower_keep_bench_cases::{BATCH, CaseRunner, RequestTemplate, batch, send};
use tower_keep_benches::run_cases;

const ROUNDS: usize = 1_000;
const BATCHES: usize = 30;

struct Case {
    name: String,
    batch: Box<dyn Fn() -> Duration>,
    fastest: Duration,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl CaseRunner for Cases {
    fn case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        let request = request.clone();
        let batch = Box::new(move || batch(&service, &request));
        self.0.push(Case { name: name.into(), batch, fastest: Duration::MAX });
    }
}

fn main() {
    let mut cases = Cases::default();
    run_cases(&mut cases);
    for _ in 0..ROUNDS {
        for case in &mut cases.0 {
            let turn = (0..BATCHES).map(|_| (case.batch)()).min();
            case.fastest = case.fastest.min(turn.unwrap_or(Duration::MAX));
        }
    }
    let bare = cases.0[0].fastest.as_nanos() as f64;
    for case in &cases.0 {
        let fastest = case.fastest.as_nanos() as f64;
        let each = |nanoseconds: f64| nanoseconds / f64::from(BATCH);
        println!(
            "{}: {:.0} ns, {:+.0} ns over bare",
            case.name,
            each(fastest),
            each(fastest - bare)
        );
    }
}
