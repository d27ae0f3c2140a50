//! Holding hosts back, as `spdk_bdev_quiesce` does: new I/O waits, what is under way is waited for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

#[derive(Default)]
struct State {
    running: u64,
    held: bool,
    waiting: Vec<Waker>,
}

/// The gate that all I/O goes through. Clones are the same gate.
#[derive(Clone, Default)]
pub(super) struct Gate(Rc<RefCell<State>>);

/// An I/O that is under way, or the hold. It ends when this is dropped.
pub(super) struct Pass {
    gate: Gate,
    hold: bool,
}

impl Gate {
    /// Waits until I/O may run.
    pub(super) async fn enter(&self) -> Pass {
        self.wait(|state| !state.held).await;
        self.0.borrow_mut().running += 1;
        Pass { gate: self.clone(), hold: false }
    }

    /// Holds new I/O back, and waits for all that is under way.
    pub(super) async fn hold(&self) -> Pass {
        self.wait(|state| !state.held).await;
        self.0.borrow_mut().held = true;
        let pass = Pass { gate: self.clone(), hold: true };
        self.wait(|state| state.running == 0).await;
        pass
    }

    async fn wait(&self, until: impl Fn(&State) -> bool) {
        poll_fn(|context| {
            let state = &mut *self.0.borrow_mut();
            if until(state) {
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let state = &mut *self.gate.0.borrow_mut();
        if self.hold {
            state.held = false
        } else {
            state.running -= 1
        }
        state.waiting.drain(..).for_each(Waker::wake);
    }
}
