//! `cargo bench -p tower-keep-benches --bench request` measures the time of a request in every
//! case, including the bare router and axum-login.
//!
//! Other load on a shared machine only adds time. So only the fastest batch of requests of each
//! criterion sample counts, and its time is used for the whole sample.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use tower::Service;
use tower_keep_bench_cases::{BATCH, CaseRunner, RequestTemplate, send, time_batch};
use tower_keep_benches::run_cases;

struct TimedRequests<'a>(BenchmarkGroup<'a, WallTime>);

impl CaseRunner for TimedRequests<'_> {
    fn run_case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        self.0.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let batches = 0..iterations.div_ceil(u64::from(BATCH));
                let fastest =
                    batches.map(|_| time_batch(&service, request)).min().unwrap_or_default();
                fastest.mul_f64(iterations as f64 / f64::from(BATCH))
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    run_cases(&mut TimedRequests(criterion.benchmark_group("request")));
    criterion.final_summary();
}
