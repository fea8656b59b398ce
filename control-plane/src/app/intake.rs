//! Messages of devices on their way into the store: many are committed together, and each is answered when it is.
//!
//! One task commits what has gathered; while it does, more gathers. Another takes the journal apart. The queue between the
//! broker and the first is bounded, and so is what waits for the second: whoever sends more waits, and with it the
//! device, which is not answered.

use super::{chain, now, numbers::Clock};
use crate::store::{
    self, Store,
    ingest::{Came, Folded, Input, Recent, Records},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time,
};

/// Messages that wait for their commit.
const QUEUE_MAX: usize = 16_384;
/// Messages of one commit, and bytes of their payloads.
const BATCH_MESSAGES_MAX: usize = 4096;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Where messages come one upon the other, so long more are waited for.
const GATHER: Duration = Duration::from_millis(3);
/// Messages come one upon the other when so many had gathered.
const GATHER_FROM: usize = 4;
/// Records that wait to be taken apart; more are not taken in.
const WAITING_MAX: u64 = 1_000_000;
/// So many are taken apart at once; fewer wait so many times what the last took, so that a device's records are written
/// together, but within these bounds.
const FOLD_FROM: u64 = 300_000;
const REST_SHARE: u32 = 10;
const REST_MIN: Duration = Duration::from_millis(200);
const REST_MAX: Duration = Duration::from_secs(10);
/// Fewer are left for the next time.
const FEW: u64 = 2_000;
/// It is looked whether there is something at least this often.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// After a failure.
const AGAIN_PERIOD: Duration = Duration::from_secs(1);
/// Whoever wants to see everything that came has so many taken apart, and waits so long for it; otherwise it sees what there
/// is.
const SETTLED_MAX: u64 = 5_000;
const SETTLED_WAIT: Duration = Duration::from_secs(1);
/// So many times what the last took nothing is taken apart for those who look: many who look all the time would have it
/// done little by little, and leave the writer no time for what comes.
const SETTLED_REST_SHARE: u32 = 3;

/// It was not kept; what went wrong is in the log.
#[derive(Debug)]
pub(super) struct NotKept;

struct Waiting {
    input: Input,
    answer: oneshot::Sender<bool>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        match &self.input {
            Input::Records(message) => message.payload.len(),
            Input::Reported { .. } | Input::Presence { .. } => 0,
        }
    }
}

/// Records that were taken in since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) messages: u64,
    pub(super) events: u64,
    pub(super) feedback: u64,
    pub(super) telemetry: u64,
}

#[derive(Debug, Default)]
struct Counts {
    messages: AtomicU64,
    events: AtomicU64,
    feedback: AtomicU64,
    telemetry: AtomicU64,
    commits: AtomicU64,
}

/// The way of messages into the store.
#[derive(Debug)]
pub(super) struct Intake {
    shared: Arc<Shared>,
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Arc<Clock>,
    recent: Recent,
    counts: Counts,
    /// Records in the journal, and those on their way there: they are counted before they are to be seen.
    waiting: AtomicU64,
    came: Notify,
    folded: Notify,
    /// The journal is taken apart by one at a time.
    folding: tokio::sync::Mutex<()>,
    /// From when on it is taken apart for those who look; none as long as it never was.
    rested_at: Mutex<Option<time::Instant>>,
    over: AtomicBool,
}

impl Intake {
    pub(super) fn new(store: Store, clock: Arc<Clock>) -> Self {
        let shared = Shared {
            store,
            clock,
            recent: Recent::default(),
            counts: Counts::default(),
            waiting: AtomicU64::new(0),
            came: Notify::new(),
            folded: Notify::new(),
            folding: tokio::sync::Mutex::new(()),
            rested_at: Mutex::new(None),
            over: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), queue: Mutex::new(None) }
    }

    /// Has it kept; it is on the disk when this returns.
    pub(super) async fn keep(&self, input: Input) -> Result<(), NotKept> {
        let (answer, kept) = oneshot::channel();
        let queue = self.queue();
        queue.send(Waiting { input, answer }).await.map_err(|_| NotKept)?;
        match kept.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(NotKept),
        }
    }

    /// Begins to take apart what was left by a server before, while nothing comes; without that it begins with the first
    /// message.
    pub(super) async fn start(&self) -> store::Result<()> {
        let waiting = self.shared.store.waiting_records().await?;
        self.shared.waiting.store(waiting, Ordering::Release);
        drop(self.queue());
        self.shared.came.notify_one();
        Ok(())
    }

    /// Takes apart what waits, unless that is much: then a look at it sees a little less.
    pub(super) async fn settle(&self) {
        if !self.shared.few_wait() || !self.shared.store.leads() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // It goes on where nobody waits for it any more.
        let taking_apart = tokio::spawn(async move {
            time::sleep_until(shared.rested_at()).await;
            if !shared.few_wait() {
                return Ok(());
            }
            // Whoever does so already sees to what came meanwhile.
            if let Ok(_one_at_a_time) = shared.folding.try_lock() {
                return shared.fold_once().await.map(drop);
            }
            drop(shared.folding.lock().await);
            Ok(())
        });
        if let Ok(Ok(Err(error))) = time::timeout(SETTLED_WAIT, taking_apart).await {
            tracing::warn!("what devices said is not taken apart yet: {}", chain(&error));
        }
    }

    /// Forgets what it holds beside the store: another server has acted.
    pub(super) fn forget(&self) {
        self.shared.recent.clear();
        self.shared.waiting.store(0, Ordering::Release);
    }

    /// Ends its tasks.
    pub(super) fn end(&self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.came.notify_one();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Messages that wait for their commit.
    pub(super) fn queued(&self) -> usize {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    /// Records that wait to be taken apart.
    pub(super) fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Commits since the start.
    pub(super) fn commits(&self) -> u64 {
        self.shared.counts.commits.load(Ordering::Relaxed)
    }

    pub(super) fn taken(&self) -> Taken {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Taken {
            messages: read(&counts.messages),
            events: read(&counts.events),
            feedback: read(&counts.feedback),
            telemetry: read(&counts.telemetry),
        }
    }

    /// The queue; its tasks begin with the first use, and again should they have broken off.
    fn queue(&self) -> mpsc::Sender<Waiting> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = queue.as_ref().filter(|queue| !queue.is_closed()) {
            return open.clone();
        }
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(Arc::clone(&self.shared).commit_all(receiver));
        tokio::spawn(Arc::clone(&self.shared).fold_all(sender.downgrade()));
        *queue = Some(sender.clone());
        sender
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    async fn commit_all(self: Arc<Self>, mut queue: mpsc::Receiver<Waiting>) {
        while let Some(first) = queue.recv().await {
            let mut bytes = first.bytes();
            let mut batch = vec![first];
            gather(&mut queue, &mut batch, &mut bytes);
            if batch.len() >= GATHER_FROM {
                time::sleep(GATHER).await;
                gather(&mut queue, &mut batch, &mut bytes);
            }
            self.commit(batch).await;
            self.wait_for_room().await;
        }
    }

    async fn commit(&self, batch: Vec<Waiting>) {
        let (inputs, answers): (Vec<Input>, Vec<oneshot::Sender<bool>>) =
            batch.into_iter().map(|waiting| (waiting.input, waiting.answer)).unzip();
        match self.take_in(inputs).await {
            Ok(()) => answer(answers, true),
            // One that the database does not take must not keep the others out.
            Err((store::Error::Database(error), inputs)) if inputs.len() > 1 => {
                tracing::warn!("a batch is kept one by one: {}", chain(&error));
                for (input, answer) in inputs.into_iter().zip(answers) {
                    let kept = self.take_in(vec![input]).await;
                    if let Err((error, _)) = &kept {
                        tracing::error!("a message could not be kept: {}", chain(error));
                    }
                    // Whoever does not wait any more needs no answer.
                    let _ = answer.send(kept.is_ok());
                }
            }
            Err((error, inputs)) => {
                tracing::error!("{} messages could not be kept: {}", inputs.len(), chain(&error));
                answer(answers, false);
            }
        }
    }

    /// Keeps all or nothing, and then gives it back.
    async fn take_in(&self, inputs: Vec<Input>) -> Result<(), (store::Error, Vec<Input>)> {
        let came = Came { received: now(), steady: self.clock.now() };
        let records = records_of(&inputs);
        self.waiting.fetch_add(records, Ordering::AcqRel);
        let number = match self.store.take_in(&inputs, came).await {
            Ok(number) => number,
            Err(error) => {
                self.waits_no_more(records);
                return Err((error, inputs));
            }
        };
        self.count(&inputs);
        if let Some(number) = number {
            self.recent.keep(number, inputs);
            self.came.notify_one();
        }
        Ok(())
    }

    fn waits_no_more(&self, records: u64) {
        let less = |waiting: u64| Some(waiting.saturating_sub(records));
        // It always gives something.
        let _ = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    fn count(&self, inputs: &[Input]) {
        let counts = &self.counts;
        for input in inputs {
            let Input::Records(message) = input else { continue };
            let of_kind = match &message.records {
                Records::Events(_) => &counts.events,
                Records::Feedback(_) => &counts.feedback,
                Records::Telemetry(_) => &counts.telemetry,
            };
            of_kind.fetch_add(message.records.len() as u64, Ordering::Relaxed);
        }
        counts.messages.fetch_add(inputs.len() as u64, Ordering::Relaxed);
        counts.commits.fetch_add(1, Ordering::Relaxed);
    }

    async fn wait_for_room(&self) {
        while self.waiting.load(Ordering::Acquire) > WAITING_MAX && !self.over.load(Ordering::Acquire) {
            // A look from time to time, too: what is told before it is waited for is not heard.
            let _ = time::timeout(AGAIN_PERIOD, self.folded.notified()).await;
        }
    }

    /// Takes the journal apart until the queue is given up.
    async fn fold_all(self: Arc<Self>, queue: mpsc::WeakSender<Waiting>) {
        let mut left_by_others = true;
        while !self.over.load(Ordering::Acquire) && queue.upgrade().is_some() {
            let waiting = self.waiting.load(Ordering::Acquire);
            if waiting == 0 && !left_by_others {
                // A look from time to time, too.
                let _ = time::timeout(LOOK_PERIOD, self.came.notified()).await;
            }
            let began = time::Instant::now();
            match self.fold().await {
                Ok(()) => {
                    left_by_others = false;
                    self.rest((began.elapsed() * REST_SHARE).clamp(REST_MIN, REST_MAX)).await;
                }
                Err(store::Error::NotLeader) => time::sleep(AGAIN_PERIOD).await,
                Err(error) => {
                    tracing::error!("what devices said is not taken apart yet: {}", chain(&error));
                    time::sleep(AGAIN_PERIOD).await;
                }
            }
        }
    }

    /// Waits, unless much waits already.
    async fn rest(&self, wait: Duration) {
        let until = time::Instant::now() + wait;
        while self.waiting.load(Ordering::Acquire) < FOLD_FROM {
            if time::timeout_at(until, self.came.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Takes apart what waits, or much of it.
    async fn fold(&self) -> store::Result<()> {
        if !self.store.leads() {
            return Err(store::Error::NotLeader);
        }
        let _one_at_a_time = self.folding.lock().await;
        self.fold_some().await
    }

    /// The same for whoever sees to it that nobody else does so.
    async fn fold_some(&self) -> store::Result<()> {
        let mut records = 0;
        loop {
            let folded = self.fold_once().await?;
            records += folded.records;
            if folded.records == 0 || folded.waiting < FEW || records >= FOLD_FROM {
                return Ok(());
            }
        }
    }

    async fn fold_once(&self) -> store::Result<Folded> {
        let began = time::Instant::now();
        let folded = self.store.fold(&self.recent).await?;
        let ended = time::Instant::now();
        *self.rested_at.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(ended + (ended - began).saturating_mul(SETTLED_REST_SHARE).min(SETTLED_WAIT));
        self.waits_no_more(folded.records);
        self.folded.notify_one();
        Ok(folded)
    }

    /// Whether something waits, and not too much for somebody who looks.
    fn few_wait(&self) -> bool {
        (1..=SETTLED_MAX).contains(&self.waiting.load(Ordering::Acquire))
    }

    /// From when on something is taken apart for those who look.
    fn rested_at(&self) -> time::Instant {
        self.rested_at.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(time::Instant::now)
    }
}

fn records_of(inputs: &[Input]) -> u64 {
    let records = |input: &Input| match input {
        Input::Records(message) => message.records.len() as u64,
        Input::Reported { .. } | Input::Presence { .. } => 0,
    };
    inputs.iter().map(records).sum()
}

fn gather(queue: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>, bytes: &mut usize) {
    while batch.len() < BATCH_MESSAGES_MAX && *bytes < BATCH_BYTES_MAX {
        let Ok(more) = queue.try_recv() else { return };
        *bytes += more.bytes();
        batch.push(more);
    }
}

fn answer(answers: Vec<oneshot::Sender<bool>>, kept: bool) {
    for answer in answers {
        // Whoever does not wait any more needs no answer.
        let _ = answer.send(kept);
    }
}

#[cfg(test)]
mod tests;
