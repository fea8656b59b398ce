//! Device identity by EST: with the tools of others alone, and with the agent.

use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    Agent, AgentOptions, ControlPlane, ServeOptions, agent::Identity, control::text_of, wait_for,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a program; its standard output.
fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

/// A device that is `openssl` and `curl`, with its files in a folder.
pub(crate) struct Curl {
    folder: PathBuf,
    device: String,
    server: String,
}

impl Curl {
    /// A device without a certificate that trusts the CAs of `control`.
    pub(crate) fn new(control: &ControlPlane, device: &str, folder: &Path) -> Result<Self> {
        let folder = folder.join(device);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("ca.pem"), control.ca_pem()?)?;
        let server = format!("https://127.0.0.1:{}", control.api);
        Ok(Self { folder, device: device.to_owned(), server })
    }

    fn file(&self, name: &str) -> Result<String> {
        Ok(text(&self.folder.join(name))?.to_owned())
    }

    /// A fresh key in `NAME.key` and a request over it in `NAME.csr`.
    fn request(&self, name: &str, common_name: &str) -> Result<()> {
        let (key, der, csr) = (
            self.file(&format!("{name}.key"))?,
            self.file(&format!("{name}.der"))?,
            self.file(&format!("{name}.csr"))?,
        );
        run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key])?;
        let subject = format!("/CN={common_name}");
        run("openssl", &["req", "-new", "-key", &key, "-subj", &subject, "-outform", "DER", "-out", &der])?;
        run("openssl", &["base64", "-in", &der, "-out", &csr]).map(drop)
    }

    /// Posts `NAME.csr`; the status, and the body in `NAME.p7`.
    fn post(&self, resource: &str, name: &str, as_whom: &[&str]) -> Result<(u16, String)> {
        let url = format!("{}/.well-known/est/{resource}", self.server);
        let body = format!("@{}", self.file(&format!("{name}.csr"))?);
        let (ca, answer) = (self.file("ca.pem")?, self.file(&format!("{name}.p7"))?);
        let mut arguments = vec!["--silent", "--show-error", "--cacert", &ca, "--output", &answer];
        arguments.extend(["--write-out", "%{http_code} %header{www-authenticate}"]);
        arguments.extend(["--header", "Content-Type: application/pkcs10", "--data-binary", &body]);
        arguments.extend(as_whom);
        arguments.push(&url);
        let said = run("curl", &arguments)?;
        let (status, challenge) = said.split_once(' ').context("no status")?;
        let status = status.parse()?;
        ensure!((status == 401) == challenge.starts_with("Basic realm="), "{status} with {challenge:?}");
        Ok((status, fs::read_to_string(answer)?))
    }

    /// Takes the certificate out of `NAME.p7` into `NAME.pem`.
    fn unpack(&self, name: &str) -> Result<PathBuf> {
        let (message, der) = (self.file(&format!("{name}.p7"))?, self.file(&format!("{name}.p7.der"))?);
        run("openssl", &["base64", "-d", "-in", &message, "-out", &der])?;
        let pem = self.folder.join(format!("{name}.pem"));
        let printed = run("openssl", &["pkcs7", "-inform", "DER", "-in", &der, "-print_certs"])?;
        fs::write(&pem, printed)?;
        Ok(pem)
    }

    /// Enrols with a token that is made for the device.
    pub(crate) fn enrol(&self, control: &ControlPlane) -> Result<Identity> {
        let token = self.token(control)?;
        self.request("first", &self.device)?;
        let user = format!("{}:{token}", self.device);
        let (status, body) = self.post("simpleenroll", "first", &["--user", &user])?;
        ensure!(status == 200, "enrolling {}: {status} {body}", self.device);
        self.unpack("first")?;
        Ok(self.identity("first"))
    }

    fn token(&self, control: &ControlPlane) -> Result<String> {
        let file = self.file("enrol.json")?;
        control.cli(&["device", "token", "create", "--device", &self.device, "--out", &file])?;
        let enrolment: Value = serde_json::from_slice(&fs::read(&file)?)?;
        Ok(text_of(&enrolment, "/token")?.to_owned())
    }

    fn identity(&self, name: &str) -> Identity {
        let file = |name: String| self.folder.join(name);
        Identity {
            ca: file("ca.pem".to_owned()),
            certificate: file(format!("{name}.pem")),
            key: file(format!("{name}.key")),
        }
    }

    /// Renews with the certificate `by`; the request is `name`.
    fn renew(&self, by: &str, name: &str) -> Result<(u16, String)> {
        let (certificate, key) = (self.file(&format!("{by}.pem"))?, self.file(&format!("{by}.key"))?);
        self.post("simplereenroll", name, &["--cert", &certificate, "--key", &key])
    }
}

fn publish(identity: &Identity, device: &str, port: u16) -> Result<Output> {
    let topic = format!("ew/v1/device/{device}/presence");
    Command::new("timeout")
        .args(["20", "mosquitto_pub", "-V", "5", "-q", "1", "-h", "127.0.0.1", "-i", device])
        .args(["-p", &port.to_string(), "-t", &topic, "-m", "{\"online\":true}", "--cafile"])
        .arg(&identity.ca)
        .arg("--cert")
        .arg(&identity.certificate)
        .arg("--key")
        .arg(&identity.key)
        .output()
        .context("running mosquitto_pub: `cargo xtask setup` brings mosquitto-clients")
}

pub(crate) fn openssl_and_curl_alone_enrol_and_renew() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let device = Curl::new(&control, "by-hand", folder.path())?;

    let (ca, message) = (device.file("ca.pem")?, device.file("cas.p7")?);
    let url = format!("{}/.well-known/est/cacerts", device.server);
    run("curl", &["--silent", "--fail", "--cacert", &ca, "--output", &message, &url])?;
    let authorities = device.unpack("cas")?;
    let fingerprint =
        |path: &str| run("openssl", &["x509", "-noout", "-fingerprint", "-sha256", "-in", path]);
    ensure!(fingerprint(text(&authorities)?)? == fingerprint(&ca)?, "cacerts is not the CA");

    let token = device.token(&control)?;
    let user = format!("by-hand:{token}");
    device.request("other-name", "somebody-else")?;
    let refused = |(status, body): (u16, String), expected: u16, word: &str| -> Result<()> {
        ensure!(status == expected && body.contains(word), "{status}, not {expected}: {body}");
        ensure!(body.trim().lines().count() == 1, "not one line: {body}");
        Ok(())
    };
    refused(device.post("simpleenroll", "other-name", &["--user", &user])?, 400, "by-hand")?;
    device.request("first", "by-hand")?;
    refused(device.post("simpleenroll", "first", &[])?, 401, "token")?;
    refused(device.post("simpleenroll", "first", &["--user", "by-hand:wrong"])?, 401, "not known")?;
    let (status, body) = device.post("simpleenroll", "first", &["--user", &user])?;
    ensure!(status == 200, "enrolling: {status} {body}");
    let first = device.unpack("first")?;
    run("openssl", &["verify", "-purpose", "sslclient", "-CAfile", &ca, text(&first)?])?;
    let facts =
        run("openssl", &["x509", "-noout", "-subject", "-ext", "extendedKeyUsage", "-in", text(&first)?])?;
    ensure!(facts.contains("by-hand") && facts.contains("Client Authentication"), "{facts}");
    let week_s = 7 * 24 * 3600;
    let good_after = |seconds: u64| {
        run("openssl", &["x509", "-noout", "-checkend", &seconds.to_string(), "-in", text(&first)?])
    };
    ensure!(good_after(week_s - 600).is_ok() && good_after(week_s + 600).is_err(), "it does not live a week");
    refused(device.post("simpleenroll", "other-name", &["--user", &user])?, 400, "by-hand")?;
    device.request("again", "by-hand")?;
    refused(device.post("simpleenroll", "again", &["--user", &user])?, 409, "used already")?;

    device.request("second", "by-hand")?;
    refused(device.post("simplereenroll", "second", &[])?, 401, "certificate")?;
    refused(device.renew("first", "other-name")?, 400, "by-hand")?;
    let (status, body) = device.renew("first", "second")?;
    ensure!(status == 200, "renewing: {status} {body}");
    let second = device.unpack("second")?;
    ensure!(fingerprint(text(&second)?)? != fingerprint(text(&first)?)?, "the same certificate came");
    for name in ["first", "second"] {
        let said = publish(&device.identity(name), "by-hand", control.mqtt)?;
        ensure!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    }
    control.cli(&["device", "revoke", "by-hand"])?;
    for name in ["first", "second"] {
        refused(device.renew(name, "second")?, 403, "revoked")?;
        ensure!(
            !publish(&device.identity(name), "by-hand", control.mqtt)?.status.success(),
            "{name} connects"
        );
    }
    Ok(())
}

pub(crate) fn an_agent_renews_while_it_runs_and_a_kill_leaves_it_connected() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let mut agent = Agent::enrol(&control, "renewing", folder.path(), AgentOptions::default())?;
    let certificate = |agent: &Agent| -> Result<Vec<u8>> {
        Ok(fs::read(agent.export_identity(&folder.path().join("exported"))?.certificate)?)
    };
    let first = certificate(&agent)?;
    agent.renew()?;
    let second = certificate(&agent)?;
    ensure!(first != second, "the certificate is the same");
    wait_for("the event of it", LIMIT, || {
        let events = control.cli(&["device", "events", "renewing"])?;
        Ok(events.to_string().contains("certificate_renewed").then_some(()))
    })?;
    agent.kill()?;
    agent.start()?;
    agent.wait_connected()?;
    ensure!(certificate(&agent)? == second, "a kill lost the certificate");

    // A control plane that is away is told of and ends nothing.
    control.stop()?;
    agent.process()?.signal(rustix::process::Signal::USR1)?;
    wait_for("the trouble to show", LIMIT, || {
        let status = agent.status()?;
        Ok(status.pointer("/certificate/trouble").and_then(Value::as_str).map(str::to_owned))
    })?;
    control.resume()?;
    agent.wait_connected()?;
    agent.process()?.check_alive()
}

pub(crate) fn a_running_fleet_moves_to_another_ca() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let mut early = Agent::enrol(&control, "early", folder.path(), AgentOptions::default())?;
    control.cli(&["ca", "rotate"])?;
    // Those that were there stay, and come again with what they have.
    early.kill()?;
    early.start()?;
    early.wait_connected()?;
    let (_, text) = control.cli_refused(&["ca", "retire"])?;
    ensure!(text.contains("1 devices use certificates of the old CA"), "{text}");
    // One that comes with the new CA's certificate.
    let mut late = Agent::enrol(&control, "late", folder.path(), AgentOptions::default())?;
    early.renew()?;
    let left = control.cli(&["ca", "retire"])?;
    ensure!(left["items"].as_array().is_some_and(|all| all.len() == 1), "{left}");
    for agent in [&mut early, &mut late] {
        agent.kill()?;
        agent.start()?;
        agent.wait_connected()?;
        agent.renew()?;
    }
    control.stop()?;
    control.resume()?;
    wait_for("both to come back", LIMIT, || {
        let list = control.cli(&["device", "list"])?;
        let online = list["items"].as_array().context("no list")?.iter().filter(|it| it["online"] == true);
        Ok((online.count() == 2).then_some(()))
    })
}

pub(crate) fn a_connected_device_that_is_revoked_is_put_out_and_kept_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let mut agent = Agent::enrol(&control, "stolen", folder.path(), AgentOptions::default())?;
    agent.renew()?;
    control.cli(&["device", "revoke", "stolen"])?;
    wait_for("the connection to end", Duration::from_secs(5), || {
        Ok((agent.metric("edgewright_mqtt_connected")? == 0.0).then_some(()))
    })?;
    wait_for("the refusal", LIMIT, || {
        agent.process()?.signal(rustix::process::Signal::USR1)?;
        let status = agent.status()?;
        let trouble = status.pointer("/certificate/trouble").and_then(Value::as_str);
        Ok(trouble.filter(|trouble| trouble.contains("revoked")).map(|_| ()))
    })?;
    ensure!(agent.metric("edgewright_mqtt_connected")? == 0.0, "it is connected again");
    agent.process()?.check_alive()
}
