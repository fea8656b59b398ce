//! A peer process that works on request: one line of JSON in, one line of JSON out, so that it can be measured in
//! turn with others.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A running peer; ended when dropped.
#[derive(Debug)]
pub struct Peer {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the peer.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}; `cargo xtask setup --peers` brings the peers"))?;
        let input = child.stdin.take().context("the peer has no input")?;
        let output = BufReader::new(child.stdout.take().context("the peer has no output")?);
        Ok(Self { name: name.to_owned(), child, input, output })
    }

    /// Sends one request and waits for its answer.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        writeln!(self.input, "{request}").with_context(|| format!("asking {}", self.name))?;
        self.input.flush().with_context(|| format!("asking {}", self.name))?;
        let mut line = String::new();
        if self.output.read_line(&mut line).with_context(|| format!("reading from {}", self.name))? == 0 {
            bail!("{} ended without an answer", self.name);
        }
        serde_json::from_str(&line).with_context(|| format!("{} answered {}", self.name, line.trim_end()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_peer_answers_line_by_line_until_it_ends() {
        let mut command = Command::new("sed");
        let mut peer = Peer::start("an echo", command.args(["-u", "2q"])).unwrap();
        let request = json!({ "run": 3 });
        assert_eq!(peer.ask::<Value>(&request).unwrap(), request);
        let error = peer.ask::<Vec<f64>>(&request).unwrap_err();
        assert!(format!("{error:#}").contains("an echo answered {\"run\":3}"), "{error:#}");
        assert!(peer.ask::<Value>(&request).is_err());
    }
}
