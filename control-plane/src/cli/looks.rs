//! Which commands only look, so that `--watch` may repeat them.

use super::{
    Command,
    audit::AuditCommand,
    authorities::CaCommand,
    boards::BoardCommand,
    datasets::DatasetCommand,
    devices::{DeviceCommand, TokenCommand},
    groups::GroupCommand,
    incidents::IncidentCommand,
    models::ModelCommand,
    retention::RetentionCommand,
    rollouts::RolloutCommand,
    searches::SearchCommand,
    telemetry::TelemetryCommand,
    tokens::ApiTokenCommand,
    trust::TrustCommand,
    users::UserCommand,
};

/// The time alone says when to look again.
const BY_TIME: &str = "";

impl Command {
    /// For a command that only looks, the kinds of changes after which there may be something else to see; none for one
    /// that does something, or that waits by itself.
    pub(super) fn looks(&self) -> Option<&'static str> {
        match self {
            Self::Overview | Self::Status => Some("rollout,job,device,incident,version"),
            Self::Dataset(DatasetCommand::List(_) | DatasetCommand::Show { .. }) => Some(BY_TIME),
            Self::Search(SearchCommand::List(_) | SearchCommand::Show { .. }) => Some("job"),
            Self::Model(ModelCommand::List { .. } | ModelCommand::Show { .. }) => Some("version"),
            Self::Board(BoardCommand::List | BoardCommand::Describe { .. } | BoardCommand::Show { .. }) => {
                Some(BY_TIME)
            }
            Self::Device(
                DeviceCommand::List { .. } | DeviceCommand::Show { .. } | DeviceCommand::Events { .. },
            ) => Some("device"),
            Self::Device(DeviceCommand::Refused(_) | DeviceCommand::Token(TokenCommand::List(_))) => {
                Some(BY_TIME)
            }
            Self::Group(GroupCommand::List(_) | GroupCommand::Show { .. }) => Some("device"),
            Self::Rollout(
                RolloutCommand::List(_) | RolloutCommand::Show { .. } | RolloutCommand::Why { .. },
            ) => Some("rollout"),
            Self::Incident(IncidentCommand::List(_) | IncidentCommand::Show { .. }) => Some("incident"),
            Self::Telemetry(TelemetryCommand::Metrics | TelemetryCommand::Query(_))
            | Self::Feedback(_)
            | Self::Retention(RetentionCommand::Show)
            | Self::Trust(TrustCommand::Status)
            | Self::Ca(CaCommand::List)
            | Self::User(UserCommand::List(_) | UserCommand::Show { .. })
            | Self::Token(ApiTokenCommand::List(_))
            | Self::Audit(AuditCommand::List(_))
            | Self::Whoami => Some(BY_TIME),
            Self::Serve(_)
            | Self::Auto(_)
            | Self::Dataset(_)
            | Self::Search(_)
            | Self::Model(_)
            | Self::Board(_)
            | Self::Device(_)
            | Self::Group(_)
            | Self::Rollout(_)
            | Self::Incident(_)
            | Self::Retention(_)
            | Self::Trust(_)
            | Self::Ca(_)
            | Self::Broker(_)
            | Self::User(_)
            | Self::Token(_)
            | Self::Login(_)
            | Self::Logout
            | Self::Context(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Openapi(_)
            | Self::Completion(_) => None,
        }
    }
}
