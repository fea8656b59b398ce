//! A device's certificate opens its own topics and nothing else, shown with mosquitto's own clients: one list of
//! cases, with the embedded broker and with a mosquitto on the configuration that comes along.

use super::{est::Curl, world::World};
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    Agent, AgentOptions, ControlPlane, Process, ServeOptions, agent::Identity, free_port, mosquitto, root,
    wait_for,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
    date_time_ymd,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(20);
const MINE: &str = "stranger";
const OTHER: &str = "victim";
const ONLINE: &str = "{\"online\":true}";
const OFFLINE: &str = "{\"online\":false}";
/// How often, for two seconds each, is looked for a last will.
const READS: usize = 2;
/// Longest that a broker needs to notice that a connection broke.
const NOTICE: Duration = Duration::from_secs(2);

/// What a device tries. In topics `{mine}` is its own id and `{other}` that of another device.
#[derive(Debug)]
enum Try {
    /// To hear what its filter covers, retained or fresh.
    Read(&'static str),
    Write(&'static str),
    /// To leave a last will that somebody hears.
    Will(&'static str),
    /// To be another, or to take its session over.
    ClientId(&'static str),
    NoCertificate,
}

/// What is allowed, and what is not.
const CASES: &[(Try, bool)] = &[
    (Try::Read("ew/v1/device/{mine}/presence"), true),
    (Try::Read("ew/v1/device/{other}/presence"), false),
    (Try::Read("ew/v1/device/{other}/#"), false),
    (Try::Read("ew/v1/device/+/presence"), false),
    (Try::Read("ew/v1/#"), false),
    (Try::Read("#"), false),
    (Try::Read("$share/group/ew/v1/device/{other}/presence"), false),
    (Try::Write("ew/v1/device/{mine}/presence"), true),
    (Try::Write("ew/v1/device/{mine}/desired"), false),
    (Try::Write("ew/v1/device/{other}/presence"), false),
    (Try::Write("ew/v1/device/{other}/desired"), false),
    (Try::Write("ew/v1/device/{mine}/profile/ask"), false),
    (Try::Write("ew/v1/device/{other}/profile/report"), false),
    (Try::Write("ew/v1/trust/timestamp"), false),
    (Try::Write("elsewhere"), false),
    (Try::Will("ew/v1/device/{other}/presence"), false),
    (Try::ClientId("{mine}"), true),
    (Try::ClientId("{other}"), false),
    (Try::NoCertificate, false),
];

/// A device as mosquitto's clients are it.
pub(crate) struct Stranger {
    pub(crate) id: String,
    pub(crate) identity: Identity,
    pub(crate) mqtt: u16,
}

impl Stranger {
    /// A client that is ended when it takes too long.
    fn command(&self, program: &str, client_id: &str, with_certificate: bool) -> Command {
        let mut command = Command::new("timeout");
        command.args(["20", program]);
        self.be(command, client_id, with_certificate)
    }

    fn be(&self, mut command: Command, client_id: &str, with_certificate: bool) -> Command {
        command
            .args(["-V", "5", "-q", "1", "-h", "127.0.0.1", "-p", &self.mqtt.to_string()])
            .args(["-i", client_id, "--cafile"])
            .arg(&self.identity.ca)
            .stdin(Stdio::null());
        if with_certificate {
            command.arg("--cert").arg(&self.identity.certificate);
            command.arg("--key").arg(&self.identity.key);
        }
        command
    }

    fn run(&self, command: &mut Command) -> Result<Output> {
        command.output().context("running mosquitto's clients: `cargo xtask setup` brings mosquitto-clients")
    }

    pub(crate) fn write(&self, topic: &str) -> Result<Output> {
        let arguments = ["-t", topic, "-r", "-m", ONLINE];
        self.run(self.command("mosquitto_pub", &self.id, true).args(arguments))
    }

    /// What `mosquitto_sub` receives on `filter` within two seconds.
    pub(crate) fn read(&self, filter: &str) -> Result<String> {
        let arguments = ["-t", filter, "-W", "2", "-v"];
        let output = self.run(self.command("mosquitto_sub", &self.id, true).args(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Connects with a last will on `topic`, and goes without a goodbye.
    fn leave_will(&self, topic: &str, log: &Path) -> Result<()> {
        let will = ["--will-topic", topic, "--will-payload", OFFLINE, "--will-retain"];
        self.listen(&format!("ew/v1/device/{}/desired", self.id), &will, log)?.kill()?;
        // Whoever connects under the same name before the broker has noticed takes the will back, and nothing but
        // the will itself shows that it has.
        std::thread::sleep(NOTICE);
        Ok(())
    }

    /// Listens to `filter` for three seconds; what happens goes to the file `log`.
    fn listen(&self, filter: &str, extra: &[&str], log: &Path) -> Result<Listener> {
        // To a file it would tell what it did when it ends, and nobody could break in before.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub"]);
        let mut command = self.be(command, &self.id, true);
        command.args(["-d", "-t", filter, "-W", "3"]).args(extra);
        command.stderr(Stdio::null()).stdout(fs::File::create(log)?);
        let child = command.spawn().context("running mosquitto_sub")?;
        let mut listener = Listener { child, log: log.to_path_buf() };
        wait_for("the subscription to be answered", LIMIT, || {
            let ended = listener.child.try_wait()?.is_some();
            Ok((ended || listener.lines("SUBACK")? > 0).then_some(()))
        })?;
        Ok(listener)
    }
}

/// A running `mosquitto_sub` that tells of every packet.
struct Listener {
    child: Child,
    log: PathBuf,
}

impl Listener {
    fn lines(&self, word: &str) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.lines().filter(|line| line.contains(word)).count())
    }

    /// Ends it without a goodbye, so that the broker speaks its last will.
    fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end, and gives what it told.
    fn end(mut self) -> Result<String> {
        self.child.wait()?;
        Ok(fs::read_to_string(&self.log)?)
    }
}

pub(crate) fn refused(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    !output.status.success() || text.contains("not authorized") || text.contains("failed")
}

/// Tries every case at one broker; `mine` and `other` are devices of it.
fn holds(mine: &Stranger, other: &Stranger, folder: &Path) -> Result<()> {
    let name = |text: &str| text.replace("{mine}", &mine.id).replace("{other}", &other.id);
    let own_presence = format!("ew/v1/device/{}/presence", mine.id);
    let say = ["-t", own_presence.as_str(), "-m", ONLINE];
    let log = folder.join("packets.log");
    let say_online = || -> Result<()> {
        for device in [mine, other] {
            let said = device.write(&format!("ew/v1/device/{}/presence", device.id))?;
            ensure!(!refused(&said), "{} was refused its own presence", device.id);
        }
        Ok(())
    };
    for (attempt, allowed) in CASES {
        let went = match attempt {
            Try::Read(filter) => {
                // One message before, kept for those who come later, and one while it listens.
                say_online()?;
                let listener = mine.listen(&name(filter), &[], &log)?;
                other.write(&format!("ew/v1/device/{}/presence", other.id))?;
                let heard = listener.end()?;
                let whose = if *allowed { &mine.id } else { &other.id };
                let topic = format!("ew/v1/device/{whose}/");
                heard.lines().any(|line| line.contains("received PUBLISH") && line.contains(&topic))
            }
            Try::Write(topic) => !refused(&mine.write(&name(topic))?),
            Try::Will(topic) => {
                // A broker may refuse the connection or the will; nobody may hear it.
                say_online()?;
                let topic = name(topic);
                mine.leave_will(&topic, &log)?;
                let heard = |_| other.read(&topic).map(|heard| heard.contains(OFFLINE));
                (0..READS).map(heard).collect::<Result<Vec<_>>>()?.contains(&true)
            }
            Try::ClientId(id) if *allowed => {
                !refused(&mine.run(mine.command("mosquitto_pub", &name(id), true).args(say))?)
            }
            Try::ClientId(id) => {
                let listener = other.listen(&format!("ew/v1/device/{}/desired", other.id), &[], &log)?;
                // A broker may refuse it or let it in under its own name; the other's session has to stay.
                mine.run(mine.command("mosquitto_pub", &name(id), true).args(say))?;
                let told = listener.end()?;
                told.lines().filter(|line| line.contains("sending CONNECT")).count() != 1
            }
            Try::NoCertificate => {
                !refused(&mine.run(mine.command("mosquitto_pub", &mine.id, false).args(say))?)
            }
        };
        let told = fs::read_to_string(&log).unwrap_or_default();
        ensure!(
            went == *allowed,
            "{attempt:?} {}; the last listener: {told}",
            if went { "went" } else { "was refused" }
        );
    }
    Ok(())
}

pub(crate) fn the_embedded_broker_keeps_devices_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let device = |id: &str| -> Result<Stranger> {
        let identity = Curl::new(&control, id, folder.path())?.enrol(&control)?;
        Ok(Stranger { id: id.to_owned(), identity, mqtt: control.mqtt })
    };
    let mine = device(MINE)?;
    holds(&mine, &device(OTHER)?, folder.path())?;
    // What it says of itself goes to the control plane, the last will too.
    let presence = format!("ew/v1/device/{MINE}/presence");
    let online = || -> Result<bool> { Ok(control.cli(&["device", "show", MINE])?["online"] == true) };
    ensure!(!refused(&mine.write(&presence)?), "the device was refused its own presence");
    ensure!(online()?, "the control plane does not hear that the device is there");
    mine.leave_will(&presence, &folder.path().join("will.log"))?;
    wait_for("the control plane to hear the will", LIMIT, || Ok((!online()?).then_some(())))
}

/// A CA with its files in a folder.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn make(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = named("test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
        let authority = Self { folder: folder.to_path_buf(), issuer: Issuer::new(params, key) };
        let nobody = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(folder.join("crl.pem"), nobody.signed_by(&authority.issuer)?.pem()?)?;
        Ok(authority)
    }

    fn issue(
        &self,
        file: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        let key = KeyPair::generate()?;
        params.extended_key_usages = vec![usage];
        let path = |suffix: &str| self.folder.join(format!("{file}{suffix}"));
        fs::write(path(".pem"), params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(path(".key.pem"), key.serialize_pem())?;
        Ok(Identity { ca: self.folder.join("ca.pem"), certificate: path(".pem"), key: path(".key.pem") })
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// The configuration that comes along, with this test's folder and port in place of those of a system.
fn start_mosquitto(folder: &Path, port: u16) -> Result<Process> {
    let shipped = root().join("firmware-configs/mosquitto");
    fs::copy(shipped.join("acl"), folder.join("acl"))?;
    let text = folder.to_str().context("not UTF-8")?;
    let mut config = fs::read_to_string(shipped.join("mosquitto.conf"))?;
    for (system, here) in [
        ("listener 8883", format!("listener {port} 127.0.0.1")),
        ("/etc/mosquitto/edgewright", text.to_owned()),
        ("/var/lib/mosquitto/", format!("{text}/")),
    ] {
        ensure!(config.contains(system), "mosquitto.conf has no {system:?}");
        config = config.replace(system, &here);
    }
    fs::write(folder.join("mosquitto.conf"), config)?;
    mosquitto::start(folder, port)
}

pub(crate) fn mosquitto_keeps_devices_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let authority = Authority::make(folder)?;
    let mut server = named("broker");
    server.subject_alt_names = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.subject_alt_names;
    authority.issue("server", server, ExtendedKeyUsagePurpose::ServerAuth)?;
    let mqtt = free_port()?;
    let _mosquitto = start_mosquitto(folder, mqtt)?;
    let device = |id: &str| -> Result<Stranger> {
        let identity = authority.issue(
            &format!("device-{}", id.replace(':', "-")),
            named(id),
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
        Ok(Stranger { id: id.to_owned(), identity, mqtt })
    };
    let (mine, other) = (device(MINE)?, device(OTHER)?);
    holds(&mine, &other, folder)?;
    let presence = format!("ew/v1/device/{MINE}/presence");
    mine.leave_will(&presence, &folder.join("will.log"))?;
    ensure!(mine.read(&presence)?.contains(OFFLINE), "a device's own will is not heard");
    // The control plane writes what devices read, and hears what they say.
    let control_plane = device("edgewright:control-plane")?;
    let desired = format!("ew/v1/device/{MINE}/desired");
    ensure!(!refused(&control_plane.write(&desired)?), "the control plane was refused");
    ensure!(mine.read(&desired)?.contains("online"), "the device does not get its desired state");
    ensure!(!other.read(&desired)?.contains("online"), "another device gets it");
    ensure!(control_plane.read("ew/v1/device/+/presence")?.contains(OTHER), "it does not hear the devices");
    Ok(())
}

/// A device whose agent is stopped, so that mosquitto's clients can be it.
fn replace(world: &World, mut agent: Agent) -> Result<Stranger> {
    agent.stop()?;
    let folder = world.folder.path().join("strangers");
    let identity = agent.export_identity(&folder.join(format!("{}-identity", agent.id)))?;
    Ok(Stranger { id: agent.id.clone(), identity, mqtt: world.control.mqtt })
}

pub(crate) fn a_device_reads_what_it_shall_run(world: &mut World) -> Result<()> {
    let folder = world.folder.path().join("strangers");
    let agent = Agent::enrol(&world.control, "stranger-read", &folder, AgentOptions::default())?;
    // A device that is away is not asked: it gets its desired state while it is there.
    let rollout = ["rollout", "create", "--version", "italy@v1.0", "--slot", "italy", "--wave", "100%"];
    world.control.cli(&[&rollout[..], &["--device", &agent.id]].concat())?;
    wait_for("its model", Duration::from_secs(30), || Ok(agent.active_version("italy")?.map(|_| ())))?;
    let stranger = replace(world, agent)?;
    let own = format!("ew/v1/device/{}/desired", stranger.id);
    wait_for("its own desired state", LIMIT, || {
        Ok(stranger.read(&own)?.contains("payloadType").then_some(()))
    })?;
    let got = stranger.read("ew/v1/device/device-1/desired")?;
    ensure!(got.is_empty(), "another's desired state: {got}");
    Ok(())
}

pub(crate) fn a_revoked_device_does_not_connect_again(world: &mut World) -> Result<()> {
    let folder = world.folder.path().join("strangers");
    let agent = Agent::enrol(&world.control, "stranger-revoked", &folder, AgentOptions::default())?;
    let stranger = replace(world, agent)?;
    let own = format!("ew/v1/device/{}/presence", stranger.id);
    ensure!(!refused(&stranger.write(&own)?), "it was refused before it was revoked");
    world.control.cli(&["device", "revoke", &stranger.id])?;
    ensure!(refused(&stranger.write(&own)?), "a revoked certificate was accepted");
    Ok(())
}
