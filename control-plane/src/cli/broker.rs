//! `edgewright broker`.

use super::{Failure, Outcome, client::Client, output::show};
use crate::{
    app::{
        chain,
        external::{BrokerCertificate, NewBrokerCertificate, RevocationLists},
        now,
    },
    signer,
};
use clap::Subcommand;
use serde_json::json;
use std::{
    fs::{self, DirBuilder},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use trust::est;

/// A broker of your own.
#[derive(Debug, Subcommand)]
pub enum BrokerCommand {
    /// Write all that a mosquitto needs: configuration, ACL, CAs, certificate with key, revoked certificates
    ///
    /// The key is made here and goes nowhere. Written again, everything is fresh: SIGHUP has mosquitto read the
    /// certificate and the revoked ones, a new start the CAs.
    #[command(after_help = "\
Example:
  edgewright broker files --out /srv/broker --name broker.example")]
    Files {
        /// Folder for them, which the configuration names; made where it is missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Name or address under which the broker is reached, besides that of `serve --broker`
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
        /// Where mosquitto listens; without it, on every address at the port of `serve --broker`
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
    },
    /// Write the list of revoked certificates alone
    Crl {
        /// File for it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

const CONFIGURATION: &str = include_str!("../../../firmware-configs/mosquitto/mosquitto.conf");
const ACL: &str = include_str!("../../../firmware-configs/mosquitto/acl");
const CONFIGURATION_FILE: &str = "mosquitto.conf";

pub(super) fn run(command: &BrokerCommand, client: &Client) -> Outcome {
    match command {
        BrokerCommand::Files { out, names, listen } => write_files(client, out, names, *listen),
        BrokerCommand::Crl { out } => {
            let lists: RevocationLists = client.get("/broker/crl")?;
            put(out, &lists.crl_pem)?;
            show(client.json, &json!({ "file": out }), |_| {
                format!("{}: have the broker read it again (mosquitto does on SIGHUP)", out.display())
            })
        }
    }
}

fn write_files(client: &Client, out: &Path, names: &[String], listen: Option<SocketAddr>) -> Outcome {
    let failed = |error: std::io::Error| Failure::Usage(format!("{} cannot be used: {error}", out.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(failed)?;
    let out = fs::canonicalize(out).map_err(failed)?;
    let folder = out
        .to_str()
        .filter(|text| !text.contains(char::is_control))
        .ok_or_else(|| Failure::Usage(format!("{}: a configuration cannot hold this name", out.display())))?;
    let (key_pem, csr) = signer::key_and_request().map_err(|error| Failure::Failed(chain(&error)))?;
    let new = NewBrokerCertificate { csr: est::encode(&csr), names: names.to_vec() };
    let made: BrokerCertificate = client.create("/broker/certificate", &new)?;
    let listener = match listen {
        Some(address) => format!("{} {}", address.port(), address.ip()),
        None => made.port.to_string(),
    };
    // Newer mosquittos warn of an ACL that everybody reads.
    for (name, text) in [("server.key.pem", key_pem.as_str()), ("acl", ACL)] {
        signer::write(&out.join(name), text.as_bytes()).map_err(|error| Failure::Failed(chain(&error)))?;
    }
    for (name, text) in [
        ("server.pem", made.certificate_pem.as_str()),
        ("ca.pem", &made.ca_pem),
        ("crl.pem", &made.crl_pem),
        (CONFIGURATION_FILE, &configuration(folder, &listener)),
    ] {
        put(&out.join(name), text)?;
    }
    let start = format!("mosquitto -c {folder}/{CONFIGURATION_FILE}");
    let written = json!({
        "folder": folder, "names": made.names, "good_until": made.good_until, "start": start,
    });
    show(client.json, &written, |_| {
        let days = made.good_until.since_ms(now()) / 86_400_000;
        format!("for {}, good for {days} days; as the user who owns {folder}: {start}", made.names.join(", "))
    })
}

fn put(path: &Path, text: &str) -> Outcome {
    signer::write_public(path, text.as_bytes()).map_err(|error| Failure::Failed(chain(&error)))
}

/// The configuration that comes along, with this folder and listener in place of a system's.
fn configuration(folder: &str, listener: &str) -> String {
    CONFIGURATION
        .replace("/etc/mosquitto/edgewright", folder)
        .replace("/var/lib/mosquitto/", &format!("{folder}/"))
        .replace("\nlistener 8883\n", &format!("\nlistener {listener}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_configuration_names_is_in_the_folder() {
        let text = configuration("/srv/broker", "1883 127.0.0.1");
        assert!(!text.contains("/etc/") && !text.contains("/var/"), "{text}");
        assert!(text.contains("\nlistener 1883 127.0.0.1\n"), "{text}");
        for line in ["acl_file", "cafile", "certfile", "keyfile", "crlfile", "persistence_location"] {
            assert!(text.contains(&format!("\n{line} /srv/broker/")), "{line}");
        }
    }
}
