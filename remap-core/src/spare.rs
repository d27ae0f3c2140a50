//! The spare as log and recovery use it: errors say what was tried, what may pass is tried again, what hangs is given up.
//!
//! An error that is not of the medium (aborted, path, no memory) says nothing about a page, so it is tried again for a
//! while; a FLUSH only if the device did not fail it. An operation that does not end within [`LIMIT`] counts as failed; a write that hangs may still come true, so
//! that nothing else is written to its blocks before it has ended.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::{Either, select};

use crate::device::{Device, Env};
use crate::error::Error;
use crate::mutation::{Mutation, active};
use crate::pace::yield_now;
use crate::status::{IoStatus, RemapOn};
use crate::tasks::Tasks;
use crate::units::SpareLba;

/// How long an operation may take before it counts as failed: that many looks at what is under way, so that none needs to know what time
/// it is. The first may come just after it has begun.
const LIMIT: Duration = Duration::from_secs(10);
const LOOKS: u64 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(LIMIT.as_secs() / (LOOKS - 1));
/// Pauses between attempts after an error that may pass: 10 ms at first, twice as long each time, 2.5 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// As many pauses as that.
const PAUSES: u32 = 8;
/// Blocks that are zeroed at once.
const ZERO_BYTES: u64 = 4 << 20;
/// The operation did not end in time.
const TIMED_OUT: IoStatus = IoStatus::Other(-libc::ETIMEDOUT);

/// The spare device.
pub(crate) struct Spare<D: Device, E: Env> {
    device: Rc<D>,
    env: Rc<E>,
    /// What goes on beside those that use this. It touches the device, so that who gives the device up waits for it.
    tasks: Tasks<E>,
    under_way: Rc<UnderWay>,
    /// Dropped with this: the task that looks after them ends then, as nobody waits for anything any more.
    watch: Cell<Option<oneshot::Sender<()>>>,
}

impl<D: Device, E: Env> Spare<D, E> {
    pub(crate) fn new(device: D, env: Rc<E>) -> Spare<D, E> {
        let tasks = Tasks::new(&env);
        Spare::with_tasks(device, env, tasks)
    }

    /// Another spare of the same set: its tasks are among those of the set.
    pub(crate) fn with_tasks(device: D, env: Rc<E>, tasks: Tasks<E>) -> Spare<D, E> {
        Spare { device: Rc::new(device), tasks, env, under_way: Rc::default(), watch: Cell::default() }
    }

    pub(crate) fn geometry(&self) -> crate::device::Geometry {
        self.device.geometry()
    }

    /// The device itself, for data: what fails there, a move handles.
    pub(crate) fn device(&self) -> &Rc<D> {
        &self.device
    }

    pub(crate) fn env(&self) -> &Rc<E> {
        &self.env
    }

    /// The tasks that use the device.
    pub(crate) fn tasks(&self) -> &Tasks<E> {
        &self.tasks
    }

    /// Whether a write to some of these blocks is late, and may still come true.
    pub(crate) fn hangs(&self, range: &Range<u64>) -> bool {
        self.under_way.hangs(range)
    }

    /// A zeroed buffer of `blocks` blocks.
    pub(crate) fn alloc(&self, blocks: u64) -> Result<D::Buffer, Error> {
        let no_memory = Error::NoMemory { blocks };
        let Ok(count) = usize::try_from(blocks) else { return Err(no_memory) };
        self.device.alloc(count).map_err(|_| no_memory)
    }

    /// What is in `blocks` blocks from `lba` on; `None` if the medium does not yield it.
    ///
    /// # Errors
    /// [`Error::Io`] if it failed in another way, again and again: that says nothing about the medium.
    pub(crate) async fn read(&self, lba: SpareLba, blocks: u64) -> Result<Option<D::Buffer>, Error> {
        self.read_into(lba, blocks, None).await
    }

    /// The same, in `buffer`, which is one of as many blocks, if there is one.
    pub(crate) async fn read_into(
        &self,
        lba: SpareLba,
        blocks: u64,
        mut buffer: Option<D::Buffer>,
    ) -> Result<Option<D::Buffer>, Error> {
        let mut patience = Patience::new(&*self.env, may_pass);
        loop {
            let device = Rc::clone(&self.device);
            let buffer = buffer.take().map_or_else(|| self.alloc(blocks), Ok)?;
            let done = self.limited(0..0, async move { device.read(lba.0, buffer).await }).await;
            let status = match done {
                Some((buffer, Ok(()))) => return Ok(Some(buffer)),
                Some((_, Err(status))) => status,
                None => TIMED_OUT,
            };
            if of_the_medium(status) || active(Mutation::TransientErrorIsVerdict) {
                return Ok(None);
            }
            if !patience.again(status).await {
                return Err(Error::Io { what: "read", lba, status });
            }
        }
    }

    /// Writes `buffer`, and gives it back unless the write hangs.
    pub(crate) async fn write(&self, lba: SpareLba, mut buffer: D::Buffer) -> (Option<D::Buffer>, Result<(), Error>) {
        let blocks = buffer.as_ref().len() as u64 / u64::from(self.geometry().block_size.max(1));
        let range = lba.0..lba.0.saturating_add(blocks);
        let failed = |status| Err(Error::Io { what: "write", lba, status });
        let mut patience = Patience::new(&*self.env, may_pass);
        loop {
            if self.under_way.hangs(&range) {
                return (Some(buffer), failed(TIMED_OUT));
            }
            let device = Rc::clone(&self.device);
            let done = self.limited(range.clone(), async move { device.write(lba.0, buffer).await }).await;
            let Some((back, result)) = done else { return (None, failed(TIMED_OUT)) };
            buffer = back;
            match result {
                Ok(()) => return (Some(buffer), Ok(())),
                Err(status) if !patience.again(status).await => return (Some(buffer), failed(status)),
                Err(_) => {}
            }
        }
    }

    /// Makes blocks read as zeros.
    pub(crate) async fn zero(&self, lba: SpareLba, blocks: u64) -> Result<(), Error> {
        let step = (ZERO_BYTES / u64::from(self.geometry().block_size.max(1))).max(1);
        let mut done = 0;
        while done < blocks {
            let (at, count) = (lba.plus(done), step.min(blocks - done));
            let range = at.0..at.0.saturating_add(count);
            if self.under_way.hangs(&range) {
                return Err(Error::Io { what: "zero", lba: at, status: TIMED_OUT });
            }
            let zero = move |device: Rc<D>| async move { device.write_zeroes(at.0, count).await };
            self.command("zero", at, range, may_pass, zero).await?;
            done += count;
        }
        Ok(())
    }

    /// Makes what was written survive power loss, on every device that takes FLUSH. One that failed in the device is not tried
    /// again: the device may have dropped what it could not write out, and have nothing to complain of the next time, as
    /// Linux does with fsync. Whoever wrote has to write again.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let flush = |device: Rc<D>| async move { device.flush().await };
        self.command("flush", SpareLba(0), 0..0, IoStatus::is_given_up, flush).await
    }

    async fn command<F: Future<Output = Result<(), IoStatus>> + 'static>(
        &self,
        what: &'static str,
        lba: SpareLba,
        range: Range<u64>,
        may_pass: fn(IoStatus) -> bool,
        run: impl Fn(Rc<D>) -> F,
    ) -> Result<(), Error> {
        let mut patience = Patience::new(&*self.env, may_pass);
        loop {
            let done = self.limited(range.clone(), run(Rc::clone(&self.device))).await;
            match done.unwrap_or(Err(TIMED_OUT)) {
                Ok(()) => return Ok(()),
                Err(status) if !patience.again(status).await => return Err(Error::Io { what, lba, status }),
                Err(_) => {}
            }
        }
    }

    /// Waits for `operation`, which writes to `range`, to its end, or until it is late: then `None`, and it goes on by itself.
    async fn limited<T: 'static>(&self, range: Range<u64>, operation: impl Future<Output = T> + 'static) -> Option<T> {
        let id = self.under_way.begin(range);
        self.watch();
        let (under_way, tasks) = (Rc::clone(&self.under_way), self.tasks.clone());
        Running { operation: Some(Box::pin(operation)), under_way, id, tasks }.await
    }

    /// Sees to it that somebody looks after the operations that are under way. That task ends with this at the latest.
    fn watch(&self) {
        if self.under_way.watched.replace(true) {
            return;
        }
        let (under_way, env) = (Rc::clone(&self.under_way), Rc::clone(&self.env));
        let (watch, mut gone) = oneshot::channel();
        self.watch.set(Some(watch));
        self.tasks.spawn(async move {
            while under_way.look() {
                // In time, also where a sleep ends early for want of memory.
                let next = env.now() + BETWEEN_LOOKS;
                while env.now() < next {
                    let pause = next.saturating_sub(env.now());
                    if let Either::Left(_) = select(&mut gone, Box::pin(env.sleep(pause))).await {
                        return under_way.watched.set(false);
                    }
                    yield_now().await;
                }
            }
            under_way.watched.set(false);
        });
    }
}

/// An operation that has begun: what comes of it, or nothing when it is late. It is run to its end also when it is dropped, as nobody waits
/// for it any more: until then the device has its buffer, and its blocks must not be written to.
struct Running<F: Future + 'static, E: Env> {
    /// `None` when it has ended.
    operation: Option<Pin<Box<F>>>,
    under_way: Rc<UnderWay>,
    id: u64,
    tasks: Tasks<E>,
}

impl<F: Future + 'static, E: Env> Future for Running<F, E> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Some(operation) = &mut self.operation else { return Poll::Pending };
        match operation.as_mut().poll(context) {
            Poll::Ready(done) => {
                self.operation = None;
                self.under_way.end(self.id);
                Poll::Ready(Some(done))
            }
            Poll::Pending if self.under_way.is_late(self.id, context.waker()) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F: Future + 'static, E: Env> Drop for Running<F, E> {
    fn drop(&mut self) {
        let Some(operation) = self.operation.take() else { return };
        let (under_way, id) = (Rc::clone(&self.under_way), self.id);
        self.tasks.spawn(async move {
            operation.await;
            under_way.end(id);
        });
    }
}

/// Whether an error means that the medium has lost or cannot take the data: the unspecific ones count, as many devices know
/// no better.
fn of_the_medium(status: IoStatus) -> bool {
    status.is_media_error(RemapOn::Any)
}

/// Whether an operation may succeed the next time, and then is as good as if it had not failed before.
fn may_pass(status: IoStatus) -> bool {
    !of_the_medium(status) && status != TIMED_OUT
}

/// Trying again what may pass.
pub(crate) struct Patience<'a, E> {
    env: &'a E,
    may_pass: fn(IoStatus) -> bool,
    pauses: u32,
}

impl<'a, E: Env> Patience<'a, E> {
    pub(crate) fn new(env: &'a E, may_pass: fn(IoStatus) -> bool) -> Patience<'a, E> {
        Patience { env, may_pass, pauses: 0 }
    }

    /// Whether to try again after `status`; waits a while before.
    pub(crate) async fn again(&mut self, status: IoStatus) -> bool {
        if !(self.may_pass)(status) || self.pauses >= PAUSES {
            return false;
        }
        self.env.sleep(FIRST_PAUSE * (1 << self.pauses)).await;
        self.pauses += 1;
        true
    }
}

/// The operations that have begun and not ended.
#[derive(Default)]
struct UnderWay {
    operations: RefCell<Vec<Operation>>,
    begun: Cell<u64>,
    /// Whether a task looks after them.
    watched: Cell<bool>,
    /// How often it has looked.
    looks: Cell<u64>,
}

struct Operation {
    id: u64,
    /// The blocks that it writes.
    range: Range<u64>,
    /// How often anybody had looked when it began.
    since: u64,
    late: bool,
    /// Who waits for it.
    waiter: Option<Waker>,
}

impl UnderWay {
    fn begin(&self, range: Range<u64>) -> u64 {
        let id = self.begun.get() + 1;
        self.begun.set(id);
        self.operations.borrow_mut().push(Operation { id, range, since: self.looks.get(), late: false, waiter: None });
        id
    }

    /// Whether it is late; if not, `waiter` is woken when it is.
    fn is_late(&self, id: u64, waiter: &Waker) -> bool {
        let mut operations = self.operations.borrow_mut();
        let Some(operation) = operations.iter_mut().find(|operation| operation.id == id) else { return false };
        if !operation.late && !operation.waiter.as_ref().is_some_and(|known| known.will_wake(waiter)) {
            operation.waiter = Some(waiter.clone());
        }
        operation.late
    }

    fn end(&self, id: u64) {
        self.operations.borrow_mut().retain(|operation| operation.id != id);
    }

    /// Whether a write to some of these blocks is late and may still come true.
    fn hangs(&self, range: &Range<u64>) -> bool {
        let operations = self.operations.borrow();
        let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        operations.iter().any(|operation| operation.late && overlaps(&operation.range))
    }

    /// Looks after them, and tells those that are late; whether there are others.
    fn look(&self) -> bool {
        let (looks, mut others) = (self.looks.get() + 1, false);
        self.looks.set(looks);
        for operation in &mut *self.operations.borrow_mut() {
            if looks - operation.since < LOOKS {
                others = true;
            } else if !std::mem::replace(&mut operation.late, true) {
                operation.waiter.take().into_iter().for_each(Waker::wake);
            }
        }
        others
    }
}
