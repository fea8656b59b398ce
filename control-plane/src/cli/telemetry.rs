//! `edgewright telemetry` and `edgewright feedback`: what devices measured and what users did, over time.

mod plot;

use super::{
    Failure, Outcome,
    client::Client,
    devices::pair,
    output::{print, show, table, word},
    query::Query,
    when::When,
};
use crate::{api::List, app::versions::VersionName};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use control_core::rollup::{Metric, Series, Step};
use shared::{DeviceId, SlotName};

/// What devices measured.
#[derive(Debug, Subcommand)]
pub enum TelemetryCommand {
    /// List what can be asked for
    Metrics,
    /// Show how a metric went
    #[command(after_help = "\
Examples:
  edgewright telemetry query latency_p99_us --version mnist@v1.1 --aggregation p95
  edgewright telemetry query requests --aggregation rate --group-by version --from 24h --watch
  edgewright telemetry query rss_bytes --device cam-01 --from 2026-01-01 --to 2026-01-08 --step 1h --csv > rss.csv")]
    Query(Box<QueryArgs>),
}

/// What users did with answers.
#[derive(Debug, Subcommand)]
pub enum FeedbackCommand {
    /// Show shares by windows: of what was shown, how much was clicked, bought, put right; and how long users stayed
    #[command(after_help = "\
Examples:
  edgewright feedback windows --kind ctr --version mnist@v1.1
  edgewright feedback windows --kind conversion --step 5m --from 6h --json")]
    Windows(WindowsArgs),
}

/// Of which devices and when.
#[derive(Debug, Args)]
struct RangeArgs {
    /// Only of this device
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// Only of this version, as in mnist@v1.0, or its id
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    /// Only in this slot
    #[arg(long)]
    slot: Option<SlotName>,
    /// Only of devices with this label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// From when: 90s, 30m, 2h or 7d for so long ago, a date, or a time as in 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", default_value = "1h")]
    from: When,
    /// Until when
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: When,
    /// From one point to the next: whole minutes, as 60s, 5m, 1h or 1d, or auto
    #[arg(long, value_name = "STEP", default_value = "auto")]
    step: Step,
    /// Print comma-separated values: a column for the time, one for each line
    #[arg(long)]
    csv: bool,
}

/// What is asked of telemetry.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// As `edgewright telemetry metrics` lists them
    metric: String,
    #[command(flatten)]
    range: RangeArgs,
    /// How the values of a step become one; avg of gauges and sum of counters where not given
    #[arg(long, value_parser = PossibleValuesParser::new(
        ["avg", "min", "max", "sum", "count", "last", "rate", "p50", "p95", "p99"]
    ))]
    aggregation: Option<String>,
    /// A line for each version, each device, or each value of a label: version, device, label:KEY
    #[arg(long, value_name = "WHAT", value_parser = group_by)]
    group_by: Option<String>,
}

/// What is asked of feedback.
#[derive(Debug, Args)]
pub struct WindowsArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Share of clicks, of conversions, of corrections, or milliseconds that users stayed
    #[arg(long, default_value = "ctr", value_parser = PossibleValuesParser::new(
        ["ctr", "conversion", "correction", "dwell"]
    ))]
    kind: String,
}

fn group_by(text: &str) -> Result<String, String> {
    let label = text.strip_prefix("label:").is_some_and(|key| !key.is_empty());
    match label || matches!(text, "version" | "device") {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is nothing to group by: write version, device or label:KEY")),
    }
}

pub(super) fn run(command: &TelemetryCommand, client: &Client) -> Outcome {
    match command {
        TelemetryCommand::Metrics => {
            let list: List<Metric> = client.get("/telemetry/metrics")?;
            show(client.json, &list, |list| {
                let rows = list
                    .items
                    .iter()
                    .map(|metric| vec![metric.name.clone(), metric.unit.clone(), word(&metric.kind)]);
                table(&["metric", "unit", "kind"], rows)
            })
        }
        TelemetryCommand::Query(args) => {
            let query = Query::default().with("metric", Some(&args.metric));
            let query = args
                .range
                .add_to(query)
                .with("aggregation", args.aggregation.as_ref())
                .with("group_by", args.group_by.as_ref());
            print_series(client, &format!("/telemetry/query{query}"), args.range.csv)
        }
    }
}

pub(super) fn run_feedback(command: &FeedbackCommand, client: &Client) -> Outcome {
    let FeedbackCommand::Windows(args) = command;
    let query = args.range.add_to(Query::default()).with("kind", Some(&args.kind));
    print_series(client, &format!("/feedback/windows{query}"), args.range.csv)
}

impl RangeArgs {
    fn add_to(&self, query: Query) -> Query {
        query
            .with("device", self.device.as_ref())
            .with("version", self.version.clone().map(String::from))
            .with("slot", self.slot.as_ref())
            .with("from", Some(self.from.ms()))
            .with("to", Some(self.to.ms()))
            .with("step", Some(self.step))
            .with_labels(&self.labels)
    }
}

fn print_series(client: &Client, path: &str, csv: bool) -> Outcome {
    if csv && client.json {
        return Err(Failure::Usage("--csv and --json: give one of them".to_owned()));
    }
    let series: Series = client.get(path)?;
    if csv { print(plot::csv(&series).trim_end()) } else { show(client.json, &series, plot::describe) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_grouped_by_is_checked_before_anything_is_sent() {
        for good in ["version", "device", "label:ring"] {
            assert_eq!(group_by(good).as_deref(), Ok(good));
        }
        for bad in ["", "label:", "ring", "label"] {
            assert!(group_by(bad).unwrap_err().contains("label:KEY"), "{bad:?}");
        }
    }
}
