//! A peer process that works on request: one line of JSON in, one line of JSON out, so that it can be measured in
//! turn with others.

use anyhow::{Context, Result, bail};
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
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.input, "{request}").with_context(|| format!("asking {}", self.name))?;
        self.input.flush()?;
        let mut line = String::new();
        if self.output.read_line(&mut line).with_context(|| format!("reading from {}", self.name))? == 0 {
            bail!("{} ended without an answer", self.name);
        }
        serde_json::from_str(&line).with_context(|| format!("{} answered {line}", self.name))
    }

    /// Sends one request whose answer is a list of numbers.
    pub fn numbers(&mut self, request: &Value) -> Result<Vec<f64>> {
        let answer = self.ask(request)?;
        let list = answer.as_array().with_context(|| format!("{} answered {answer}", self.name))?;
        list.iter().map(|value| value.as_f64().context("an answer that is no number")).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
