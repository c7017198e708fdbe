//! Threads that requests are handed to when too many of them would stand before others.
//!
//! All threads are started with the lane and none later: starting one can wait for memory, and memory
//! may wait for a device that is served here.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// What a lane runs.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// A queue and the threads that work on it. Dropping it does what is queued, and ends them.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Lane {
    /// Starts the threads.
    pub(crate) fn start(name: &str, thread_count: usize) -> io::Result<Lane> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { jobs: VecDeque::with_capacity(1024), closed: false }),
            wake: Condvar::new(),
        });
        let mut lane = Lane { shared, threads: Vec::with_capacity(thread_count) };
        for index in 0..thread_count {
            let shared = Arc::clone(&lane.shared);
            let thread =
                std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                    while let Some(job) = next(&shared) {
                        job()
                    }
                })?;
            lane.threads.push(thread);
        }
        Ok(lane)
    }

    /// Hands over a request.
    pub(crate) fn submit(&self, job: Job) {
        self.shared.queue.lock().jobs.push_back(job);
        self.shared.wake.notify_one();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // Jobs do not panic: the service catches what devices do.
            let _ = thread.join();
        }
    }
}

/// Waits for a job; none when the lane has been dropped and all are done.
fn next(shared: &Shared) -> Option<Job> {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            return Some(job);
        }
        if queue.closed {
            return None;
        }
        shared.wake.wait(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_is_done_before_the_lane_ends() {
        let done = Arc::new(AtomicUsize::new(0));
        let lane = Lane::start("test", 3).unwrap();
        for _ in 0..1000 {
            let done = Arc::clone(&done);
            lane.submit(Box::new(move || {
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        drop(lane);
        assert_eq!(done.load(Ordering::Relaxed), 1000);
    }
}
