//! `cargo bench -p tower-keep-benches --bench cost`: what each case adds to the bare router, one line
//! a case.
//!
//! A shared machine is slow now and then, and criterion's mean with it. Here the cases take turns
//! for many rounds, and of each case the fastest few requests count.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response};
use tower::Service;
use tower_keep_benches::{Template, Visitor, send, visit};

const ROUNDS: usize = 1_000;
const BATCHES: usize = 30;
/// In a batch: so few that the allocator keeps all that they need in its fastest lists.
const REQUESTS: u32 = 4;

struct Case {
    name: String,
    batch: Box<dyn Fn() -> Duration>,
    fastest: Duration,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Visitor for Cases {
    fn case<S, B>(&mut self, name: &str, service: S, request: &Template, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        let request = request.clone();
        let batch = move || {
            let requests: Vec<_> = (0..REQUESTS).map(|_| request.request()).collect();
            let start = Instant::now();
            requests.into_iter().for_each(|request| drop(black_box(send(&service, request))));
            start.elapsed()
        };
        self.0.push(Case { name: name.into(), batch: Box::new(batch), fastest: Duration::MAX });
    }
}

fn main() {
    let mut cases = Cases::default();
    visit(&mut cases);
    for _ in 0..ROUNDS {
        for case in &mut cases.0 {
            let turn = (0..BATCHES).map(|_| (case.batch)()).min();
            case.fastest = case.fastest.min(turn.unwrap_or(Duration::MAX));
        }
    }
    let bare = cases.0[0].fastest.as_nanos() as f64;
    for case in &cases.0 {
        let fastest = case.fastest.as_nanos() as f64;
        let each = |nanoseconds: f64| nanoseconds / f64::from(REQUESTS);
        println!(
            "{}: {:.0} ns, {:+.0} ns over bare",
            case.name,
            each(fastest),
            each(fastest - bare)
        );
    }
}
