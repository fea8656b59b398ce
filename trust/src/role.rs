//! Names of roles; those of teams are [`shared::TeamName`]s.

pub use shared::id::TOP_LEVEL_ROLES as TOP_LEVEL;
