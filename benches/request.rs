//! `cargo bench -p tower-keep-benches --bench request`: the time of a request, each case beside the
//! bare router and the peer.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion};
use tower::Service;
use tower_keep_benches::{Template, Visitor, send, visit};

/// One request at a time, so that what is measured finds the allocator as a server would, with
/// the last request's memory just freed. The clock's own time is in every case alike.
const BATCH: BatchSize = BatchSize::PerIteration;

struct Timed<'a>(BenchmarkGroup<'a, WallTime>);

impl Visitor for Timed<'_> {
    fn case<S, B>(&mut self, name: &str, service: S, request: &Template, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        self.0.bench_function(name, |bencher| {
            // The response is dropped within the time, as a server drops it.
            let answer = |request| send(&service, request).status();
            bencher.iter_batched(|| request.request(), answer, BATCH);
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    visit(&mut Timed(criterion.benchmark_group("request")));
    criterion.final_summary();
}
