//! Dropped futures: how a clause drops the future of a call, and what the store then holds.

use std::time::Duration;

/// Polls the future of a call for a while, and then drops the future. Each step polls for longer
/// than the step before. The last steps usually give the call enough time to finish.
pub(super) async fn poll_then_drop<T, Fut: Future<Output = T>>(step: u32, call: Fut) {
    let mut call = Box::pin(call);
    // The first steps limit the number of polls instead of the time, because some stores finish a
    // call faster than the shortest time limit.
    if step < 4 {
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            match call.as_mut().poll(cx) {
                std::task::Poll::Pending if polls <= step => {
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                _ => std::task::Poll::Ready(()),
            }
        })
        .await;
    } else {
        let timeout = Duration::from_micros(50 << (step - 4).min(10));
        let _ = tokio::time::timeout(timeout, call).await;
    }
}

/// A clause calls [`poll_then_drop`] with each step below this number.
pub(super) const DROP_STEPS: u32 = 12;

/// How many reads in a row must return the same result. Together, these reads take longer than one
/// write to a disk.
const EQUAL_READS: u32 = 10;

/// Repeats `read` until its result stays the same, and returns that result. The store may finish a
/// write a moment after the future of the call was dropped.
pub(super) async fn wait_until_settled<T: PartialEq, Fut: Future<Output = T>>(
    read: impl Fn() -> Fut,
) -> T {
    let mut before = read().await;
    let mut equal_reads = 0;
    while equal_reads < EQUAL_READS {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let after = read().await;
        equal_reads = if before == after { equal_reads + 1 } else { 0 };
        before = after;
    }
    before
}
