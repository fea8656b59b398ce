//! `edgewright retention`: how long what devices say is kept.

use super::{
    Outcome,
    client::Client,
    output::{show, table},
};
use clap::{Args, Subcommand};
use control_core::retention::{DAYS_MAX, Retention};

/// How long things are kept.
#[derive(Debug, Subcommand)]
pub enum RetentionCommand {
    /// Show it
    Show,
    /// Change it; what is not given stays
    #[command(after_help = "\
Example:
  edgewright retention set --raw-days 7 --day-days 730

What is older goes within the hour and does not come back.")]
    Set(SetArgs),
}

/// What changes.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct SetArgs {
    /// Days of events, feedback and telemetry as they came
    #[arg(long, value_name = "N", group = "what", value_parser = days())]
    raw_days: Option<u32>,
    /// Days of roll-ups by minute
    #[arg(long, value_name = "N", group = "what", value_parser = days())]
    minute_days: Option<u32>,
    /// Days of roll-ups by hour; at least those by minute
    #[arg(long, value_name = "N", group = "what", value_parser = days())]
    hour_days: Option<u32>,
    /// Days of roll-ups by day, and of incidents that are closed; at least those by hour
    #[arg(long, value_name = "N", group = "what", value_parser = days())]
    day_days: Option<u32>,
    /// Days of the audit log
    #[arg(long, value_name = "N", group = "what", value_parser = days())]
    audit_days: Option<u32>,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX))
}

pub(super) fn run(command: &RetentionCommand, client: &Client) -> Outcome {
    let retention: Retention = client.get("/retention")?;
    let retention = match command {
        RetentionCommand::Show => retention,
        RetentionCommand::Set(args) => client.put("/retention", &args.changed(retention))?,
    };
    show(client.json, &retention, |kept| {
        let rows = [
            ("events, feedback, telemetry", kept.raw_days),
            ("roll-ups by minute", kept.minute_days),
            ("roll-ups by hour", kept.hour_days),
            ("roll-ups by day, closed incidents", kept.day_days),
            ("audit log", kept.audit_days),
        ];
        table(&["what", "days"], rows.map(|(what, days)| vec![what.to_owned(), days.to_string()]))
    })
}

impl SetArgs {
    fn changed(&self, before: Retention) -> Retention {
        Retention {
            raw_days: self.raw_days.unwrap_or(before.raw_days),
            minute_days: self.minute_days.unwrap_or(before.minute_days),
            hour_days: self.hour_days.unwrap_or(before.hour_days),
            day_days: self.day_days.unwrap_or(before.day_days),
            audit_days: self.audit_days.unwrap_or(before.audit_days),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays() {
        let before = Retention::default();
        let args = SetArgs {
            raw_days: Some(7),
            minute_days: None,
            hour_days: None,
            day_days: None,
            audit_days: None,
        };
        assert_eq!(args.changed(before), Retention { raw_days: 7, ..before });
    }
}
