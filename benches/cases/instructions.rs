//! `cargo xtask instructions` runs this bench in valgrind, which counts the instructions of a
//! request in every case of tower-keep. Without valgrind the bench counts nothing.
//!
//! Times vary with the machine and its load, and instructions hardly do. So a small increase can be
//! noticed.

use std::convert::Infallible;
use std::hint::black_box;

use axum::body::Body;
use axum::http::{Request, Response};
use sha2::block_api::compress256;
use tower::Service;
use tower_keep_bench_cases::{BATCH, CaseRunner, RequestTemplate, run_cases, send};

/// The number of batches whose instructions are counted in each case.
const BATCHES: u32 = 250;
/// The number of batches before them, so that what is done only once is not counted.
const WARM_UP: u32 = 50;

/// Valgrind counts the instructions inside calls of this function, which it finds by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// When this function is called, valgrind writes what it has counted since the previous call to a
/// file. It finds the function by its name. The printed line belongs to that file.
#[inline(never)]
fn finished(name: &str, times: u32) {
    println!("{name} {times}");
}

struct Counted;

impl CaseRunner for Counted {
    fn case<S, B>(&mut self, name: &str, service: S, request: &RequestTemplate, status: u16)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    {
        assert_eq!(send(&service, request.request()).status(), status, "{name}");
        let batch = || (0..BATCH).map(|_| request.request()).collect::<Vec<_>>();
        let send_all = |requests: Vec<_>| {
            requests.into_iter().for_each(|request| drop(black_box(send(&service, request))));
        };
        (0..WARM_UP).for_each(|_| send_all(batch()));
        for _ in 0..BATCHES {
            let mut requests = batch();
            counted(&mut || send_all(std::mem::take(&mut requests)));
        }
        finished(name, BATCHES * BATCH);
    }
}

/// Hashes single blocks. Their cost shows how many blocks a request hashes.
fn hash_blocks() {
    let (mut state, block, blocks) = ([0; 8], [0; 64], BATCHES * BATCH);
    counted(&mut || (0..blocks).for_each(|_| compress256(&mut state, &[black_box(block)])));
    finished("sha256-block", blocks);
}

fn main() {
    hash_blocks();
    run_cases(&mut Counted);
}
