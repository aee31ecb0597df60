//! `cargo bench -p tower-keep-benches --bench allocations` prints the allocations of one request in
//! each case. It fails if a case exceeds its budget.

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

/// The allocations of each case, by its name.
#[derive(Default)]
struct CountedAllocations(HashMap<String, u64>);

impl CaseRunner for CountedAllocations {
    fn run_case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
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
    let mut counted = CountedAllocations::default();
    run_cases(&mut counted);
    let allocations_of = |name: &str| counted.0.get(name).copied().unwrap_or(u64::MAX);
    let mut is_within_budgets = true;
    for (name, budget) in BUDGETS {
        let added = allocations_of(name).saturating_sub(allocations_of("bare"));
        if added > budget {
            eprintln!("{name} adds {added} allocations to bare, more than its budget of {budget}");
            is_within_budgets = false;
        }
    }
    if is_within_budgets { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
