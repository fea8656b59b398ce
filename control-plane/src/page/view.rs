//! What the page shows, as HTML.

use super::style::SHEET;
use crate::app::Status;
use control_core::{
    entity::{Dataset, Device, DeviceEvent, Job, JobState, Rollout, RolloutSummary, SecurityEvent},
    rollout::{MemberCounts, Reading, State, Verdict},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use shared::{
    Timestamp,
    wire::{Phase, SlotReport, WaitsFor},
};
use std::collections::BTreeMap;

/// Everything that the page shows.
pub(super) struct Shown {
    pub(super) status: Status,
    pub(super) devices: Vec<Device>,
    /// Beside one that is under way stands all of it, for its waves and gates.
    pub(super) rollouts: Vec<(RolloutSummary, Option<Rollout>)>,
    pub(super) jobs: Vec<Job>,
    pub(super) datasets: Vec<Dataset>,
    pub(super) events: Vec<DeviceEvent>,
    pub(super) security: Vec<SecurityEvent>,
    pub(super) now: Timestamp,
}

const REFRESH_S: u32 = 3;

fn document(title: &str, refresh: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                @if refresh { meta http-equiv="refresh" content=(REFRESH_S); }
                title { (title) }
                style { (PreEscaped(SHEET)) }
            }
            body { (body) }
        }
    }
}

/// The form that asks for the token.
pub(super) fn login(remark: Option<&str>) -> Markup {
    document(
        "Edgewright",
        false,
        &html! {
            form method="post" action="/status/login" {
                h1 { "Edgewright" }
                p.soft { "The token is in " code { "context.json" } " in the server's data folder." }
                @if let Some(remark) = remark { p.bad { (remark) } }
                input type="password" name="token" aria-label="Token" autofocus required;
                button { "Open" }
            }
        },
    )
}

/// The page.
pub(super) fn page(shown: &Shown) -> Markup {
    let status = &shown.status;
    document(
        "Edgewright",
        true,
        &html! {
            main {
                header {
                    h1 { "Edgewright" }
                    small { "version " (status.version) ", up " (ago(status.started_at, shown.now)) ", broker " (status.mqtt) @if !status.broker.connected { span.bad { " not connected" } } }
                }
                div.cards {
                    (card("Devices online", &format!("{} / {}", status.devices.online, status.devices.total)))
                    (card("Rollouts under way", &status.open_rollouts.to_string()))
                    (card("Jobs", &status.open_jobs.to_string()))
                    (card("Events", &status.ingest.events.to_string()))
                    (card("Feedback", &status.ingest.feedback.to_string()))
                    (card("Model bytes sent", &bytes(status.delivery.bytes_published)))
                    (card("Refused", &status.ingest.refused.to_string()))
                }
                section { h2 { "Devices" } (devices(shown)) }
                section { h2 { "Rollouts" } @for (rollout, whole) in &shown.rollouts { (roll(rollout, whole.as_ref())) } @if shown.rollouts.is_empty() { p.soft { "None so far." } } }
                section { h2 { "Jobs" } @for job in &shown.jobs { (work(job)) } @if shown.jobs.is_empty() { p.soft { "None so far." } } }
                @if !shown.datasets.is_empty() { section { h2 { "Data sets" } (datasets(&shown.datasets)) } }
                section { h2 { "Recent events" } (events(shown)) }
                @if !shown.security.is_empty() { section { h2 { "Refused" } (security(shown)) } }
            }
        },
    )
}

fn card(title: &str, figure: &str) -> Markup {
    html! { div.card { b { (figure) } small { (title) } } }
}

fn tag(class: &str, text: &str) -> Markup {
    html! { span class={ "tag " (class) } { (text) } }
}

fn devices(shown: &Shown) -> Markup {
    html! {
        table {
            tr { th { "Device" } th { "State" } th { "Board" } th { "Slot" } th { "Version" } th { "Runtime" } th { "Phase" } th { "Seen" } }
            @for device in &shown.devices {
                @let slots = device.reported.as_ref().map(|reported| reported.slots.as_slice()).unwrap_or_default();
                @if slots.is_empty() {
                    tr { td { b { (device.id) } } td { (presence(device)) } td { (device.board) } td.soft colspan="4" { "no model" } td.soft { (seen(device, shown.now)) } }
                }
                @for slot in slots {
                    tr {
                        td { b { (device.id) } }
                        td { (presence(device)) }
                        td { (device.board) }
                        td { (slot.slot) }
                        td { @match &slot.active { Some(active) => { (active.model) "@" (active.version) } None => { span.soft { "none" } } } }
                        td { (slot.runtime.as_deref().unwrap_or("")) }
                        td { (phase(slot)) }
                        td.soft { (seen(device, shown.now)) }
                    }
                }
            }
        }
        @if shown.devices.is_empty() { p.soft { "None so far: " code { "edgewright device token create --out FILE" } } }
    }
}

fn presence(device: &Device) -> Markup {
    match (device.revoked_at, device.online) {
        (Some(_), _) => tag("bad", "revoked"),
        (None, true) => tag("ok", "online"),
        (None, false) => tag("idle", "offline"),
    }
}

fn seen(device: &Device, now: Timestamp) -> String {
    device.seen_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", ago(at, now)))
}

fn phase(slot: &SlotReport) -> Markup {
    match &slot.phase {
        Phase::Idle => tag("ok", "idle"),
        Phase::Fetching { chunks_done, chunks_total, .. } => {
            tag("busy", &format!("fetching {chunks_done}/{chunks_total}"))
        }
        Phase::Testing { .. } => tag("busy", "testing"),
        Phase::Trial { .. } => tag("busy", "trial"),
        Phase::Waiting { reason, waits_for: WaitsFor::Budget, .. } => {
            html! { (tag("idle", "waiting")) " " small { (reason) } }
        }
        Phase::Waiting { reason, .. } => html! { (tag("bad", "waiting")) " " small { (reason) } },
    }
}

fn roll(rollout: &RolloutSummary, whole: Option<&Rollout>) -> Markup {
    let class = match rollout.status.state {
        State::Running => "busy",
        State::Paused => "idle",
        State::Completed => "ok",
        State::Stopped | State::Aborted => "bad",
    };
    let reason = whole.map_or(&rollout.status.reason, |whole| &whole.status.reason);
    html! {
        div.roll {
            b { (rollout.version) } " → " (rollout.slot) " " (tag(class, &word(&rollout.status.state)))
            " " small { (reason) ", " (bytes(rollout.bytes_published)) " sent" }
            @match whole {
                Some(whole) => {
                    @for (wave, members) in waves(whole) { (bar(&format!("Wave {}", wave + 1), &members)) }
                    @for reading in &whole.gates { (gate(reading)) }
                }
                None => { (bar("Devices", &rollout.members)) }
            }
        }
    }
}

/// The members of each wave that has some, from 0.
fn waves(rollout: &Rollout) -> BTreeMap<u32, MemberCounts> {
    let mut waves: BTreeMap<u32, MemberCounts> = BTreeMap::new();
    for member in &rollout.devices {
        waves.entry(member.wave).or_default().add(member.state, 1);
    }
    waves
}

fn gate(reading: &Reading) -> Markup {
    let class = match reading.verdict {
        Verdict::Open => "ok",
        Verdict::Stop => "bad",
        Verdict::More => "idle",
    };
    html! { div { (tag(class, &word(&reading.verdict))) " " small { (reading.text) } } }
}

fn bar(name: &str, members: &MemberCounts) -> Markup {
    let parts = [
        ("ok", members.committed),
        ("bad", members.failed + members.reverted),
        ("busy", members.assigned),
        ("idle", members.skipped),
    ];
    html! {
        div.wave {
            small { (name) }
            div.bar {
                @for (class, part) in parts {
                    @if part > 0 { i class=(class) style={ "width:" (part * 100 / members.total.max(1)) "%" } {} }
                }
            }
            small { (members.committed) " of " (members.total) }
        }
    }
}

fn work(job: &Job) -> Markup {
    let class = match job.state {
        JobState::Queued => "idle",
        JobState::Running => "busy",
        JobState::Done => "ok",
        JobState::Failed | JobState::Cancelled => "bad",
    };
    let progress = &job.progress;
    let percent = progress.step.saturating_mul(100) / progress.total.max(1);
    html! {
        div.roll {
            b { (job.model) } " " (word(&job.task)) " on " (job.dataset) " for " (job.board) " " (tag(class, &word(&job.state)))
            @if let Some(version) = &job.version { " → " b { (version) } }
            @if let Some(error) = &job.error { " " span.bad { (error) } }
            @if job.state == JobState::Running {
                div.wave {
                    small { (progress.stage.map(|stage| word(&stage)).unwrap_or_default()) }
                    div.bar { i.busy style={ "width:" (percent.min(100)) "%" } {} }
                    small { (progress.step) " of " (progress.total) }
                }
                @if let Some(message) = &progress.message { small { (message) } }
            }
            @if let Some(report) = &job.report {
                div { small {
                    (report.quality()) ", " (bytes(report.model.bytes_int8_onnx)) ", " (report.model.parameters) " parameters"
                } }
                (remarks(&report.dataset.remarks))
            }
            @if let Some(cell) = &job.cell { pre { (cell) } }
        }
    }
}

fn datasets(datasets: &[Dataset]) -> Markup {
    html! {
        table {
            tr { th { "Data set" } th { "Task" } th { "Samples" } th { "To know" } }
            @for dataset in datasets {
                tr {
                    td { b { (dataset.id) } }
                    td { (word(&dataset.schema.task)) }
                    td { (dataset.schema.train_count) " + " (dataset.schema.test_count) }
                    td { (remarks(&dataset.schema.remarks)) }
                }
            }
        }
    }
}

/// What is to be known of a data set.
fn remarks(remarks: &[String]) -> Markup {
    html! { @for remark in remarks { div { small { (remark) } } } }
}

fn events(shown: &Shown) -> Markup {
    html! {
        table {
            @for event in &shown.events {
                tr { td.soft { (ago(event.at, shown.now)) " ago" } td { b { (event.device) } } td { (word(&event.kind)) } td { (event.detail) } }
            }
        }
        @if shown.events.is_empty() { p.soft { "None so far." } }
    }
}

fn security(shown: &Shown) -> Markup {
    html! {
        table {
            @for event in &shown.security {
                tr { td.soft { (ago(event.at, shown.now)) " ago" } td { b { (event.subject) } } td.bad { (event.kind) @if event.count > 1 { " × " (event.count) } } td { (event.detail) } }
            }
        }
    }
}

/// The wire's word for an enum of unit variants, with spaces.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default().trim_matches('"').replace('_', " ")
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        _ => format!("{} MiB", count / 1_048_576),
    }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.since_ms(at) / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}
