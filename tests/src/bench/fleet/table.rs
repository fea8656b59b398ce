//! What was measured, for people.

use super::{
    RunReport, Settled,
    flood::{FloodReport, Step},
};

const MIB: f64 = 1_048_576.0;
/// What gauges of queues are called.
const QUEUE: &str = "waiting";
/// Threads that are shown.
const THREADS: usize = 6;

/// One run, as soon as it is over.
pub fn line(run: &RunReport) -> String {
    let RunReport { devices, broker, store, converged_s, ingest_per_s, query_p99_ms, .. } = run;
    format!(
        "{devices} devices, {broker}, {store}: converged in {converged_s:.1} s, {ingest_per_s:.0} messages/s, \
         queries p99 {query_p99_ms:.0} ms"
    )
}

/// All of them.
#[expect(clippy::cast_precision_loss)]
pub fn runs(runs: &[RunReport]) -> String {
    let mut text = format!(
        "{:>7} {:>9} {:>8} {:>9} {:>9} {:>9} {:>8} {:>7} {:>10} {:>9} {:>9} {:>6} {:>9} {:>9}\n",
        "devices",
        "broker",
        "store",
        "enrol s",
        "connect s",
        "converge s",
        "CPU s",
        "RSS MiB",
        "KiB/device",
        "taken/s",
        "alone/s",
        "ratio",
        "lost",
        "query p99"
    );
    for run in runs {
        let alone = run.broker_only_per_s;
        let ratio = alone.map(|alone| run.ingest_per_s / alone.max(1.0));
        text += &format!(
            "{:>7} {:>9} {:>8} {:>9.1} {:>9.1} {:>10.1} {:>8.1} {:>7.0} {:>10.1} {:>9.0} {:>9} {:>6} {:>9} {:>6.0} ms\n",
            run.devices,
            run.broker.to_string(),
            run.store.to_string(),
            run.enrolled_s,
            run.connected_s,
            run.converged_s,
            run.server_cpu_s,
            run.server_rss_bytes as f64 / MIB,
            run.server_rss_bytes_per_device as f64 / 1024.0,
            run.ingest_per_s,
            alone.map_or_else(|| "-".to_owned(), |alone| format!("{alone:.0}")),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            run.settled.sent.saturating_sub(run.settled.stored),
            run.query_p99_ms,
        );
    }
    text += "CPU s: of the server from the first connection until all have converged; ratio: taken in to the broker alone\n";
    text
}

/// A flood and what stopped it.
pub fn flood(flood: &FloodReport) -> String {
    let FloodReport { devices, broker, store, enrolled_s, reported_s, .. } = flood;
    let mut text = format!(
        "{devices} devices, {broker}, {store}: enrolled in {enrolled_s:.1} s, all reported after {reported_s:.1} s\n"
    );
    if let Some(most) = flood.connections_max {
        text += &format!("{most} connections at one time, for the limit of open files; devices take turns\n");
    }
    text += &format!(
        "{:>9} {:>9} {:>9} {:>9} {:>9}  processors\n",
        "offered/s", "taken/s", "held/s", "p50 ms", "p99 ms"
    );
    for step in &flood.steps {
        let Step {
            offered_per_s, messages_per_s, held_per_s, acknowledged_p50_ms, acknowledged_p99_ms, ..
        } = step;
        let parts = step.used.parts.iter().map(|part| format!("{} {:.2}", part.part, part.processors));
        text += &format!(
            "{offered_per_s:>9.0} {messages_per_s:>9.0} {held_per_s:>9.0} {acknowledged_p50_ms:>9.1} \
             {acknowledged_p99_ms:>9.1}  {}\n",
            parts.collect::<Vec<_>>().join(", ")
        );
    }
    let (best, wanted) = (flood.best_per_s, flood.wanted_per_s);
    let verdict = if flood.is_enough { "enough" } else { "not enough" };
    text += &format!("{best:.0} messages a second at most, wanted are {wanted:.0}: {verdict}\n");
    text += &format!("what keeps more from being taken in is {}\n", flood.bottleneck);
    let most = flood.steps.iter().max_by(|one, other| one.messages_per_s.total_cmp(&other.messages_per_s));
    for share in most.into_iter().flat_map(|step| step.used.server_threads.iter().take(THREADS)) {
        text += &format!("  {:>6.2} processors in threads {}\n", share.processors, share.thread);
    }
    let waiting = most
        .into_iter()
        .flat_map(|step| &step.gauges)
        .filter(|(name, most)| name.contains(QUEUE) && **most > 0.0);
    for (name, most) in waiting {
        text += &format!("  {most:>6.0} at most in {name}\n");
    }
    for function in &flood.functions {
        text += &format!("  {function}\n");
    }
    let Settled { sent, stored, duplicates, stored_after_s } = flood.settled;
    text += &format!(
        "{sent} records sent, {stored} stored {stored_after_s:.1} s after the last, {duplicates} twice\n"
    );
    text
}
