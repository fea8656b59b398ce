//! Whether one more job of the forge may start beside those that run.

/// Share of the memory in use from which no further job starts.
pub const MEMORY_MAX: f64 = 0.9;
/// Share of the processors in use from which no further job starts while nothing waits.
const LOAD_MAX: f64 = 0.85;
/// What is added to it where as many jobs wait as there are processors, or more.
const LOAD_MORE: f64 = 0.1;

/// What the machine is doing, jobs and everything else together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Share of the processors that is in use, 0 to 1.
    pub busy: f64,
    /// Share of the memory that is in use, 0 to 1.
    pub memory: f64,
    /// Processors.
    pub cores: usize,
}

/// Why a job waits.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Wait {
    /// As many run as the operator allows.
    #[error("{running} jobs run, as many as are allowed")]
    Enough { running: usize },
    /// There is no measurement since the last start.
    #[error("how loaded the machine is, is not known yet")]
    Unknown,
    /// The processors are in use.
    #[error("{:.0} % of the processors are in use, {:.0} % is the most for another job", busy * 100.0, most * 100.0)]
    Busy { busy: f64, most: f64 },
    /// The memory is in use.
    #[error("{:.0} % of the memory is in use, {:.0} % is the most for another job", memory * 100.0, MEMORY_MAX * 100.0)]
    Memory { memory: f64 },
}

/// Whether a job may start beside `running` others while `waiting` wait, it included, where `most` may run at once. One
/// job always may: what loads the machine may not be ours, and would keep it from ever starting.
///
/// # Errors
/// Why it waits.
pub fn may_start(running: usize, waiting: usize, most: usize, load: Option<Load>) -> Result<(), Wait> {
    if running == 0 {
        return Ok(());
    }
    if running >= most {
        return Err(Wait::Enough { running });
    }
    let Load { busy, memory, cores } = load.ok_or(Wait::Unknown)?;
    let most = load_max(waiting as f64 / cores.max(1) as f64);
    if memory > MEMORY_MAX {
        Err(Wait::Memory { memory })
    } else if busy > most {
        Err(Wait::Busy { busy, most })
    } else {
        Ok(())
    }
}

/// The more waits, the fuller the machine may be.
fn load_max(load_factor: f64) -> f64 {
    LOAD_MAX + LOAD_MORE * load_factor.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load { busy: 0.5, memory: 0.3, cores: 4 };

    #[test]
    fn the_first_job_starts_whatever_the_machine_does_and_others_only_where_there_is_room() {
        let full = Load { busy: 1.0, memory: 0.99, cores: 4 };
        assert_eq!(may_start(0, 3, 1, Some(full)), Ok(()));
        assert_eq!(may_start(0, 3, 1, None), Ok(()));
        assert_eq!(may_start(1, 1, 4, Some(IDLE)), Ok(()));
        assert_eq!(may_start(1, 1, 1, Some(IDLE)), Err(Wait::Enough { running: 1 }));
        assert_eq!(may_start(1, 1, 4, None), Err(Wait::Unknown));
        let memory = Load { memory: 0.91, ..IDLE };
        assert_eq!(may_start(1, 1, 4, Some(memory)), Err(Wait::Memory { memory: 0.91 }));
    }

    #[test]
    fn the_more_jobs_wait_the_fuller_the_machine_may_be() {
        let busy = |busy| Some(Load { busy, ..IDLE });
        assert!(may_start(1, 0, 4, busy(0.86)).is_err());
        assert!(may_start(1, 1, 4, busy(0.87)).is_ok());
        assert!(may_start(1, 4, 4, busy(0.94)).is_ok());
        // Not fuller than that, however many wait.
        let refused = may_start(1, 400, 4, busy(0.96)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "96 % of the processors are in use, 95 % is the most for another job"
        );
    }
}
