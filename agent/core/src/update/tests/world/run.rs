//! How time passes: action by action, and from one timeout to the next.

use super::World;
use crate::update::{Fetched, Input, SlotInput};

impl World {
    /// Carries out actions and answers until nothing is left to do at this time.
    pub(in super::super) fn run_actions(&mut self) {
        while self.step() {}
    }

    /// At most `count` actions and answers.
    pub(in super::super) fn run_some(&mut self, count: usize) {
        for _ in 0..count {
            if !self.step() {
                return;
            }
        }
    }

    /// Stops as soon as a test is under way.
    pub(in super::super) fn run_actions_until_test(&mut self) {
        self.hold_tests = true;
        for _ in 0..1000 {
            if !self.step() && !self.wake() {
                break;
            }
        }
        self.hold_tests = false;
    }

    pub(in super::super) fn run_until(&mut self, reached: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if reached(self) {
                return;
            }
            if !self.step() && !self.wake() {
                break;
            }
        }
        panic!("never reached; {:?}", self.report());
    }

    /// Runs through all waiting until nothing is due.
    pub(in super::super) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() && !self.wake() {
                return;
            }
        }
        panic!("never settles; {:?}", self.report());
    }

    /// To the next timeout, and what follows from it.
    pub(in super::super) fn advance(&mut self) {
        self.wake();
        self.run_actions();
    }

    fn wake(&mut self) -> bool {
        let Some(at) = self.machine.poll_timeout() else { return false };
        self.passed_ms += at.since_ms(self.now);
        self.now = self.now.max(at);
        self.machine.handle_timeout(self.now);
        true
    }

    fn step(&mut self) -> bool {
        if let Some(mut reply) = self.replies.pop_front() {
            self.look_again(&mut reply);
            // Answers to attempts that were given up are rejected, as they are on a device.
            let _ = self.machine.handle(reply, self.now);
            return true;
        }
        let Some(action) = self.machine.poll_action() else { return false };
        self.perform(action);
        self.actions += 1;
        if self.cut_at.is_some_and(|at| self.actions > at) {
            self.cut_at = None;
            self.online &= !self.dark_after_cut;
            self.restart();
        }
        true
    }

    /// What is on disk counts, not what was there when the blob was opened.
    fn look_again(&self, reply: &mut Input) {
        if let Input::Slot(_, SlotInput::BlobOpened { digest, fetched }) = reply {
            match self.partial.get(digest) {
                Some(partial) => *fetched = Fetched::Part(partial.clone()),
                None if self.whole.contains(digest) => *fetched = Fetched::Whole,
                None => {}
            }
        }
    }
}
