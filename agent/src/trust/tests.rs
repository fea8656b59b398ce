use super::*;
use crate::testing::{Offline, key};
use ::trust::author::Document;
use proptest::prelude::*;
use shared::{Digest, ModelVersionId, signing::SigningKey};
use uuid::Uuid;

struct Device {
    folder: tempfile::TempDir,
    offline: Offline,
    director: SigningKey,
}

fn version(minor: u32) -> VersionRef {
    VersionRef {
        model: "mnist".parse().unwrap(),
        version: format!("v1.{minor}").parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(u128::from(minor) + 1)),
        bundle: Digest::of(format!("bundle {minor}").as_bytes()),
    }
}

impl Device {
    fn new() -> Self {
        let director = key();
        let keyring = Keyring::new([
            TrustedKey { role: Role::Director, key: director.public().clone() },
            TrustedKey { role: Role::Release, key: key().public().clone() },
        ]);
        Self { folder: tempfile::tempdir().unwrap(), offline: Offline::new(&keyring), director }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("trust.json")
    }

    fn vouch(&mut self, version: &VersionRef) {
        self.offline.vouch(&version.model, version.version, version.bundle);
    }

    fn trust(&self) -> Trust {
        self.offline.trust(&self.path())
    }

    fn hear(&self, trust: &Trust) -> Vec<Heard> {
        self.offline.pieces().into_iter().map(|(file, bytes)| trust.offer(file, &bytes).unwrap()).collect()
    }
}

fn refusal(denied: Result<(), Denied>) -> Refusal {
    denied.unwrap_err().refusal()
}

#[test]
fn only_the_very_bundle_that_the_offline_keys_name_may_be_installed() {
    let mut device = Device::new();
    device.vouch(&version(0));
    let trust = device.trust();
    trust.allows(&version(0), None).unwrap();
    assert_eq!(refusal(trust.allows(&version(1), None)), Refusal::NotVouchedFor);
    let swapped = VersionRef { bundle: Digest::of(b"another"), ..version(0) };
    assert_eq!(refusal(trust.allows(&swapped, None)), Refusal::NotVouchedFor);
    assert_eq!(trust.keyring().keys().len(), 2);
}

#[test]
fn a_device_that_has_heard_nothing_yet_installs_nothing_and_obeys_nobody() {
    let mut device = Device::new();
    device.vouch(&version(0));
    let trust = Trust::open(device.path(), device.offline.first_root()).unwrap();
    assert_eq!(refusal(trust.allows(&version(0), None)), Refusal::NotVouchedFor);
    assert!(trust.keyring().keys().is_empty());
}

#[test]
fn an_older_version_is_denied_until_the_newer_one_is_withdrawn() {
    let mut device = Device::new();
    device.vouch(&version(0));
    device.vouch(&version(1));
    let trust = device.trust();
    assert_eq!(refusal(trust.allows(&version(0), Some(&version(1)))), Refusal::Older);
    trust.allows(&version(1), Some(&version(1))).unwrap();
    trust.allows(&version(1), Some(&version(0))).unwrap();
    device.offline.withdraw(&version(1).model, version(1).version);
    device.hear(&trust);
    trust.allows(&version(0), Some(&version(1))).unwrap();
}

#[test]
fn who_has_every_online_key_can_neither_add_a_version_nor_bring_an_older_state_back() {
    let mut device = Device::new();
    device.vouch(&version(0));
    let before = device.offline.pieces();
    device.vouch(&version(1));
    let trust = device.trust();
    // Targets with one version more, signed by the director's key; snapshot and timestamp are the real keys'.
    device.offline.vouch(&version(2).model, version(2).version, version(2).bundle);
    let forged = device.offline.pieces_by(&device.director);
    let heard: Vec<_> = forged.into_iter().map(|(file, bytes)| trust.offer(file, &bytes).unwrap()).collect();
    assert!(matches!(heard.last(), Some(Heard::Refused { word: "signature", .. })), "{heard:?}");
    assert_eq!(refusal(trust.allows(&version(2), None)), Refusal::NotVouchedFor);
    // What was in force before, byte for byte.
    for (file, bytes) in before {
        let heard = trust.offer(file, &bytes).unwrap();
        assert!(!matches!(heard, Heard::Updated(_)), "{heard:?}");
    }
    assert_eq!(refusal(trust.allows(&version(2), None)), Refusal::NotVouchedFor);
}

#[test]
fn new_online_keys_that_the_root_names_put_a_device_right_again() {
    let mut device = Device::new();
    device.vouch(&version(0));
    let trust = device.trust();
    device.offline.vouch(&version(1).model, version(1).version, version(1).bundle);
    for (file, bytes) in device.offline.pieces_by(&device.director) {
        trust.offer(file, &bytes).unwrap();
    }
    let (file, root) = device.offline.replace_online_keys();
    trust.offer(file, &root).unwrap();
    device.vouch(&version(1));
    device.hear(&trust);
    trust.allows(&version(1), Some(&version(0))).unwrap();
}

#[test]
fn pieces_may_come_in_any_order_and_twice() {
    let mut device = Device::new();
    device.vouch(&version(0));
    let pieces = device.offline.pieces();
    for start in 0..pieces.len() {
        let trust =
            Trust::open(device.folder.path().join(format!("{start}.json")), device.offline.first_root());
        let trust = trust.unwrap();
        let turned = pieces.iter().cycle().skip(start).take(2 * pieces.len());
        let heard: Vec<_> = turned.map(|(file, bytes)| trust.offer(file.clone(), bytes).unwrap()).collect();
        assert!(heard.iter().all(|heard| !matches!(heard, Heard::Refused { .. })), "{heard:?}");
        trust.allows(&version(0), None).unwrap();
    }
}

#[test]
fn what_is_believed_outlives_a_restart_and_a_damaged_file_is_named() {
    let mut device = Device::new();
    device.vouch(&version(0));
    drop(device.trust());
    let trust = Trust::open(device.path(), b"another root counts no more").unwrap();
    trust.allows(&version(0), None).unwrap();
    assert_eq!(trust.keyring().keys().len(), 2);
    assert_eq!(device.hear(&trust).last(), Some(&Heard::Same));
    let whole = fs::read(device.path()).unwrap();
    fs::write(device.path(), &whole[..whole.len() / 2]).unwrap();
    let error = Trust::open(device.path(), device.offline.first_root()).unwrap_err().to_string();
    assert!(error.contains("trust.json") && error.contains("enrol again"), "{error}");
}

/// Writes what is in force as files, under the names that TUF gives them.
fn write(offline: &Offline, folder: &Path) {
    for (file, bytes) in offline.pieces() {
        let number = Document::parse(&bytes).unwrap().version();
        let name = match file {
            TrustFile::Root { version } => format!("{version}.root.json"),
            TrustFile::Timestamp => "timestamp.json".to_owned(),
            TrustFile::Targets => format!("{number}.targets.json"),
            TrustFile::Snapshot => format!("{number}.snapshot.json"),
            TrustFile::Delegated(team) => format!("{number}.{team}.json"),
        };
        fs::write(folder.join(name), bytes).unwrap();
    }
}

#[test]
fn a_folder_brings_what_mqtt_brings() {
    let mut device = Device::new();
    device.vouch(&version(0));
    let stick = tempfile::tempdir().unwrap();
    write(&device.offline, stick.path());
    device.vouch(&version(1));
    write(&device.offline, stick.path());
    fs::write(stick.path().join("holiday.jpg"), b"no metadata").unwrap();
    let trust = Trust::open(device.path(), device.offline.first_root()).unwrap();
    assert!(trust.import(stick.path()).unwrap().contains("targets"));
    trust.allows(&version(1), None).unwrap();
    let again = trust.import(stick.path()).unwrap_err().to_string();
    assert!(again.contains("no newer"), "{again}");
    assert!(trust.import(&stick.path().join("nowhere")).is_err());
}

#[test]
fn of_a_folder_with_many_versions_those_count_that_belong_together() {
    let mut device = Device::new();
    device.vouch(&version(0));
    let stick = tempfile::tempdir().unwrap();
    write(&device.offline, stick.path());
    // Newer targets whose snapshot and timestamp did not get onto it, and older ones that are of no use.
    let mut newer = Device { folder: tempfile::tempdir().unwrap(), ..device };
    newer.vouch(&version(1));
    let pieces = newer.offline.pieces();
    let (_, targets) = pieces.iter().find(|(file, _)| *file == TrustFile::Targets).unwrap();
    fs::write(stick.path().join("3.targets.json"), targets).unwrap();
    fs::write(stick.path().join("1.targets.json"), b"rot").unwrap();
    fs::write(stick.path().join("7.snapshot.json"), b"rot").unwrap();
    let trust = Trust::open(newer.path(), newer.offline.first_root()).unwrap();
    assert!(trust.import(stick.path()).unwrap().contains("targets"));
    trust.allows(&version(0), None).unwrap();
    assert_eq!(refusal(trust.allows(&version(1), None)), Refusal::NotVouchedFor);
    // All of it now, but for one file.
    write(&newer.offline, stick.path());
    fs::remove_file(stick.path().join("3.snapshot.json")).unwrap();
    let error = trust.import(stick.path()).unwrap_err().to_string();
    assert!(error.contains("3.snapshot.json"), "{error}");
    write(&newer.offline, stick.path());
    trust.import(stick.path()).unwrap();
    trust.allows(&version(1), None).unwrap();
}

#[test]
fn every_root_of_a_folder_is_gone_through() {
    let mut device = Device::new();
    let stick = tempfile::tempdir().unwrap();
    write(&device.offline, stick.path());
    let trust = device.trust();
    let (_, root) = device.offline.replace_online_keys();
    fs::write(stick.path().join("2.root.json"), root).unwrap();
    device.vouch(&version(0));
    write(&device.offline, stick.path());
    let roles = trust.import(stick.path()).unwrap();
    assert!(roles.contains("root") && roles.contains("targets"), "{roles}");
    trust.allows(&version(0), None).unwrap();
}

#[test]
fn what_a_team_signed_comes_in_a_folder_too_and_outlives_a_restart() {
    let mut device = Device::new();
    let of_team = VersionRef { model: "vision-cats".parse().unwrap(), ..version(0) };
    device.offline.vouch_as_team("vision", &of_team.model, of_team.version, of_team.bundle);
    let stick = tempfile::tempdir().unwrap();
    write(&device.offline, stick.path());
    let trust = Trust::open(device.path(), device.offline.first_root()).unwrap();
    assert!(trust.import(stick.path()).unwrap().contains("vision"));
    drop(trust);
    let trust = Trust::open(device.path(), device.offline.first_root()).unwrap();
    trust.allows(&of_team, None).unwrap();
    let of_others = VersionRef { model: "audio".parse().unwrap(), ..of_team };
    assert_eq!(refusal(trust.allows(&of_others, None)), Refusal::NotVouchedFor);
}

#[test]
fn a_flood_of_roots_and_teams_is_cut_off() {
    let device = Device::new();
    let trust = device.trust();
    let root = trust.offer(TrustFile::Root { version: 5000 }, b"{}").unwrap();
    assert!(matches!(root, Heard::Refused { word: "too_many", .. }), "{root:?}");
    for number in 0..TEAMS_MAX {
        trust.offer(TrustFile::Delegated(format!("team-{number}").parse().unwrap()), b"{}").unwrap();
    }
    let team = trust.offer(TrustFile::Delegated("one-more".parse().unwrap()), b"{}").unwrap();
    assert!(matches!(team, Heard::Refused { word: "too_many", .. }), "{team:?}");
    let large = trust.offer(TrustFile::Targets, &vec![b' '; METADATA_BYTES_MAX + 1]).unwrap();
    assert!(matches!(large, Heard::Refused { word: "too_large", .. }), "{large:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_changed_byte_of_any_piece_lets_nothing_in(at in any::<prop::sample::Index>(), piece in 1usize..4, flip in 1u8..) {
        let mut device = Device::new();
        device.vouch(&version(0));
        let trust = Trust::open(device.path(), device.offline.first_root()).unwrap();
        let mut pieces = device.offline.pieces();
        let bytes = &mut pieces[piece].1;
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        for (file, bytes) in &pieces {
            trust.offer(file.clone(), bytes).unwrap();
        }
        // White space between tokens is the one thing that may differ; the signed bytes are the canonical ones.
        if trust.allows(&version(0), None).is_ok() {
            let changed: serde_json::Value = serde_json::from_slice(&pieces[piece].1).unwrap();
            let whole: serde_json::Value = serde_json::from_slice(&device.offline.pieces()[piece].1).unwrap();
            prop_assert_eq!(&changed["signed"], &whole["signed"]);
        }
    }
}
