//! Following what an operator asks for.

use super::{Order, Planner, Rejected, State};

impl Planner<'_> {
    pub(super) fn follow(&mut self, order: Order) -> Result<(), Rejected> {
        let state = self.plan.status.state;
        match (state, order) {
            (State::Running, Order::Pause) => self.turn(State::Paused, "paused by an operator".to_owned()),
            (State::Paused, Order::Resume) => {
                self.turn(State::Running, "resumed by an operator".to_owned());
                // Gates get their whole time once more.
                if let Some(closed_at) = &mut self.plan.status.wave_closed_at {
                    *closed_at = self.input.now.max(*closed_at);
                }
            }
            (State::Running | State::Paused, Order::Abort) => {
                self.observe();
                self.end(State::Aborted, "aborted by an operator".to_owned());
            }
            (State::Running | State::Paused, Order::Approve { wave }) => self.approve(wave)?,
            (State::Running | State::Paused, Order::Waive { wave }) => self.waive(wave)?,
            (State::Running, Order::Resume)
            | (State::Paused, Order::Pause)
            | (State::Completed | State::Stopped | State::Aborted, _) => {
                return Err(Rejected::State { state, order });
            }
        }
        Ok(())
    }

    fn approve(&mut self, wave: Option<u32>) -> Result<(), Rejected> {
        let policy = self.input.policy;
        let approved = &mut self.plan.status.approved;
        let waves = u32::try_from(policy.waves.len()).unwrap_or(u32::MAX);
        let next = || (0..waves).find(|wave| policy.needs_approval(*wave) && !approved.contains(wave));
        let Some(wave) = wave.or_else(next) else {
            return Err(Rejected::Wave("no wave waits for an approval".to_owned()));
        };
        if !policy.needs_approval(wave) {
            return Err(Rejected::Wave(format!("wave {} needs no approval", u64::from(wave) + 1)));
        }
        if !approved.insert(wave) {
            return Err(Rejected::Wave(format!("wave {} was approved already", wave + 1)));
        }
        self.plan.notes.push(format!("wave {} was approved by an operator", wave + 1));
        Ok(())
    }

    fn waive(&mut self, wave: Option<u32>) -> Result<(), Rejected> {
        let newest = self.plan.status.wave;
        let wave = wave.unwrap_or(newest);
        if wave != newest || self.input.policy.gates.is_empty() {
            let text = format!("wave {} has no gates that wait for evidence", u64::from(wave) + 1);
            return Err(Rejected::Wave(text));
        }
        if !self.plan.status.waived.insert(wave) {
            return Err(Rejected::Wave(format!("wave {} needs no more evidence already", wave + 1)));
        }
        self.plan.notes.push(format!("an operator asks for no more evidence behind wave {}", wave + 1));
        Ok(())
    }
}
