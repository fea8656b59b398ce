//! `edgewright-agent status`: asks a running agent how it is.

pub use crate::api::Status;
use crate::renewal;
use shared::wire::{Outcome, Phase};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("--api is {0:?}; write http://127.0.0.1:8700 or unix:/path")]
    Address(String),
    /// Nobody answers there.
    #[error(
        "no agent answers on {address}; start it with `edgewright-agent run`, or give its address with --api"
    )]
    Unreachable { address: String, source: io::Error },
    /// What answers is no agent.
    #[error("what answers on {address} is no agent: {reason}")]
    Answer { address: String, reason: String },
}

/// The status of the agent whose API is at `address`, as it came and as it reads.
pub fn ask(address: &str) -> Result<(Vec<u8>, Status), Error> {
    let unreachable = |source| Error::Unreachable { address: address.to_owned(), source };
    let answer = match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            get(stream)
        }),
        None => {
            let host = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
            if !host.contains(':') {
                return Err(Error::Address(address.to_owned()));
            }
            TcpStream::connect(host).and_then(|stream| {
                stream.set_read_timeout(Some(TIMEOUT))?;
                get(stream)
            })
        }
    }
    .map_err(unreachable)?;
    let wrong = |reason: String| Error::Answer { address: address.to_owned(), reason };
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let at = split.ok_or_else(|| wrong("no HTTP".to_owned()))?;
    let (head, body) = (&answer[..at], &answer[at + 4..]);
    if !head.starts_with(b"HTTP/1.1 200") && !head.starts_with(b"HTTP/1.0 200") {
        return Err(wrong(String::from_utf8_lossy(&head[..head.len().min(40)]).replace("\r\n", " ")));
    }
    let status = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    Ok((body.to_vec(), status))
}

fn get(mut stream: impl Read + Write) -> io::Result<Vec<u8>> {
    // HTTP/1.0: the answer has no chunks and ends with the connection.
    stream.write_all(b"GET /status HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// For people.
pub fn describe(status: &Status) -> String {
    let mut lines = Vec::new();
    if let Some(reported) = &status.reported {
        lines.push(format!(
            "device      {} ({}), agent {}",
            reported.device, reported.board, reported.agent_version
        ));
        lines.push(format!("generation  {}", reported.generation));
        for slot in &reported.slots {
            let active = slot.active.as_ref();
            let active =
                active.map_or_else(|| "nothing".to_owned(), |on| format!("{} {}", on.model, on.version));
            let runtime = slot.runtime.as_deref().map_or_else(String::new, |name| format!(" on {name}"));
            lines.push(format!("slot        {}: {active}{runtime}, {}", slot.slot, phase(&slot.phase)));
            if let Some(attempt) = &slot.attempt {
                lines.push(format!("  last try  {}: {}", attempt.version.version, outcome(&attempt.outcome)));
            }
        }
    }
    lines.push(format!("broker      {}", if status.connected { "connected" } else { "not connected" }));
    if let Some(certificate) = &status.certificate {
        lines.push(format!("certificate {}", renewal::describe(certificate)));
    }
    lines.push(format!("runtimes    {}", status.runtimes.join(", ")));
    lines.push(format!("outbox      {} records", status.outbox_records));
    if let Some(trouble) = &status.store_trouble {
        lines.push(format!("database    takes no records: {trouble}"));
    }
    if let Some(ready_ms) = status.start_to_ready_ms {
        lines.push(format!("ready after {ready_ms} ms"));
    }
    if let Some(rss_bytes) = status.rss_bytes {
        lines.push(format!("memory      {:.1} MiB", rss_bytes as f64 / f64::from(1 << 20)));
    }
    lines.join("\n")
}

fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Idle => "nothing to do".to_owned(),
        Phase::Fetching { chunks_done, chunks_total, .. } => {
            format!("fetching, {chunks_done} of {chunks_total} chunks")
        }
        Phase::Testing { .. } => "testing".to_owned(),
        Phase::Trial { .. } => "on trial".to_owned(),
        Phase::Waiting { reason, .. } => format!("waiting: {reason}"),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed => "passed its trial".to_owned(),
        Outcome::Refused { detail, .. } => format!("refused: {detail}"),
        Outcome::RolledBack { detail } => format!("rolled back: {detail}"),
    }
}
