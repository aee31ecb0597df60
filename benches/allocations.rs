//! `cargo bench -p tower-keep-benches --bench allocations` prints one line for each case. It fails
//! if a case exceeds its budget.

use std::collections::HashMap;
use std::convert::Infallible;
use std::process::ExitCode;

use axum::body::Body;
use axum::http::{Request, Response};
use tower::Service;
use tower_keep_bench_cases::{CaseRunner, RequestTemplate, send};
use tower_keep_benches::run_cases;

/// How many allocations each case may add to those of `bare`.
const BUDGETS: [(&str, u64); 8] = [
    ("keep-untouched", 4),
    ("keep-guarded", 8),
    ("keep-extractor", 8),
    ("keep-route-layer", 12),
    ("keep-untouched-server-side", 4),
    ("keep-guarded-server-side", 10),
    ("keep-extractor-server-side", 10),
    ("keep-route-layer-server-side", 14),
];

#[derive(Default)]
struct Counted(HashMap<String, u64>);

impl CaseRunner for Counted {
    fn case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        let request = request.request();
        let counted = allocation_counter::measure(|| drop(send(&service, request)));
        println!("{name}: {} allocations, {} bytes", counted.count_total, counted.bytes_total);
        self.0.insert(name.to_owned(), counted.count_total);
    }
}

fn main() -> ExitCode {
    let mut counted = Counted::default();
    run_cases(&mut counted);
    let of = |name: &str| counted.0.get(name).copied().unwrap_or(u64::MAX);
    let mut kept = true;
    for (name, budget) in BUDGETS {
        let added = of(name).saturating_sub(of("bare"));
        if added > budget {
            eprintln!("{name} adds {added} allocations to bare, more than its budget of {budget}");
            kept = false;
        }
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
