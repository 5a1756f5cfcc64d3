//! Calls that are given up while the disk's thread is at them.

use super::*;

/// An interrupted run drops the call while the disk's thread is at it.
#[test]
fn a_begin_that_is_given_up_leaves_nothing() {
    let (scratch, storage) = local();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for _ in 0..200 {
            // Polled once: the work is on its way, and mostly not done.
            let begun = tokio::time::timeout(Duration::ZERO, storage.begin("db/2026/dump")).await;
            if let Ok(writer) = begun {
                writer.unwrap().abort().await.unwrap();
            }
        }
    });
    // Waits for the disk's threads.
    drop(runtime);
    let left = everything(scratch.path());
    assert!(!left.iter().any(|path| path.contains("dump")), "{left:?}");
}

/// Work that keeps the only disk thread busy until told to go on, queued behind what it has.
struct Occupation {
    has_begun: tokio::sync::oneshot::Receiver<()>,
    go_on: std::sync::mpsc::Sender<()>,
    thread: tokio::task::JoinHandle<()>,
}

impl Occupation {
    fn queue() -> Self {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let thread = tokio::task::spawn_blocking(move || {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
        });
        Self { has_begun, go_on, thread }
    }

    async fn begun(&mut self) {
        (&mut self.has_begun).await.unwrap();
    }

    async fn end(self) {
        self.go_on.send(()).unwrap();
        self.thread.await.unwrap();
    }

    /// The thread takes its work in order: after this one nothing is left to do.
    async fn all_done() {
        Self::queue().end().await;
    }
}

/// Polls once, for work that can't be done by then.
async fn push<T>(mut work: std::pin::Pin<&mut (impl Future<Output = T> + ?Sized)>) {
    let pending = std::future::poll_fn(|cx| work.as_mut().poll(cx).is_pending().into());
    assert!(pending.await, "it was done while the disk thread was busy");
}

fn with_one_disk_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.max_blocking_threads(1).enable_time().build().unwrap().block_on(test);
}

#[test]
fn a_create_that_is_given_up_publishes_nothing_later() {
    with_one_disk_thread(async {
        let (scratch, storage) = local();
        let mut busy = Occupation::queue();
        busy.begun().await;
        let mut created = storage.create_new("a/claim", "x".into());
        push(created.as_mut()).await;
        drop(created);
        busy.end().await;
        Occupation::all_done().await;
        assert_eq!(everything(scratch.path()), ["root"]);
    });
}

#[test]
fn a_commit_that_is_given_up_publishes_nothing_later() {
    with_one_disk_thread(async {
        let (scratch, storage) = local();
        let mut writer = storage.begin("a/dump").await.unwrap();
        writer.write("x".into()).await.unwrap();
        let mut busy = Occupation::queue();
        busy.begun().await;
        let mut commit = writer.commit();
        // The bytes wait for the thread; behind them it is busy again; behind that, the rename.
        push(commit.as_mut()).await;
        let mut busy_again = Occupation::queue();
        busy.end().await;
        busy_again.begun().await;
        push(commit.as_mut()).await;
        drop(commit);
        busy_again.end().await;
        Occupation::all_done().await;
        assert_eq!(everything(scratch.path()), ["root"]);
    });
}
