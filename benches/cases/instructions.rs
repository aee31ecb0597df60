//! `cargo xtask instructions` runs this bench in valgrind. For each case that `run_cases` passes,
//! valgrind counts the CPU instructions of one request. Without valgrind the bench counts nothing.
//!
//! The time of a request varies with the machine and its load. The number of instructions hardly
//! varies, so even a small increase is noticed.

use std::convert::Infallible;
use std::hint::black_box;

use axum::body::Body;
use axum::http::{Request, Response};
use sha2::block_api::compress256;
use tower::Service;
use tower_keep_bench_cases::{BATCH, CaseRunner, RequestTemplate, run_cases, send};

/// The number of batches whose instructions are counted in each case.
const BATCHES: u32 = 250;
/// The number of batches that run before the counted batches, so that work that is done only once
/// is not counted.
const WARM_UP_BATCHES: u32 = 50;

/// Runs the work. Valgrind finds this function by its name, and counts only during calls of it.
#[inline(never)]
fn run_counted(work: &mut dyn FnMut()) {
    work();
}

/// Prints a line. Valgrind finds this function by its name, and before each call writes a file with
/// the counts since the previous call. The line says which case the file belongs to, and how many
/// requests were counted.
#[inline(never)]
fn finish_case(name: &str, repetitions: u32) {
    println!("{name} {repetitions}");
}

struct CountedRequests;

impl CaseRunner for CountedRequests {
    fn run_case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        let new_batch = || (0..BATCH).map(|_| request.request()).collect::<Vec<_>>();
        let send_all = |requests: Vec<_>| {
            requests.into_iter().for_each(|request| drop(black_box(send(&service, request))));
        };
        (0..WARM_UP_BATCHES).for_each(|_| send_all(new_batch()));
        for _ in 0..BATCHES {
            let mut requests = new_batch();
            run_counted(&mut || send_all(std::mem::take(&mut requests)));
        }
        finish_case(name, BATCHES * BATCH);
    }
}

/// Hashes single blocks, so that xtask learns how many instructions one block takes.
fn calibrate() {
    let (mut state, block, blocks) = ([0; 8], [0; 64], BATCHES * BATCH);
    run_counted(&mut || (0..blocks).for_each(|_| compress256(&mut state, &[black_box(block)])));
    finish_case("sha256-block", blocks);
}

fn main() {
    calibrate();
    run_cases(&mut CountedRequests);
}
