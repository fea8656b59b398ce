use super::*;

fn saved(token: Option<&str>) -> Saved {
    Saved {
        server: "https://127.0.0.1:8443".to_owned(),
        ca_pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        token: token.map(str::to_owned),
        user: Some("anna".to_owned()),
        role: Some("viewer".to_owned()),
        expires_at: Some(Timestamp(1_764_547_200_000)),
    }
}

fn name(text: &str) -> ContextName {
    text.parse().unwrap()
}

#[test]
fn what_is_written_is_read_again_and_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgewright/config.toml");
    assert_eq!(Config::read(&path), Ok(Config::default()));
    let written = Config {
        current: Some(name("b")),
        contexts: [(name("a"), saved(None)), (name("b"), saved(Some("t")))].into(),
    };
    Config::change(&path, |config| {
        *config = written.clone();
        Ok(())
    })
    .unwrap();
    assert_eq!(Config::read(&path), Ok(written));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_change_that_fails_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let insert = |config: &mut Config| {
        config.contexts.insert(name("a"), saved(None));
    };
    Config::change(&path, |config| {
        insert(config);
        Ok(())
    })
    .unwrap();
    let before = fs::read(&path).unwrap();
    let failed: Result<(), _> = Config::change(&path, |config| {
        config.contexts.clear();
        Err(Failure::Usage("no".to_owned()))
    });
    assert_eq!(failed, Err(Failure::Usage("no".to_owned())));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_cannot_be_used_is_one_line_with_the_key_and_what_is_allowed() {
    let good = toml::to_string(&Config {
        current: None,
        contexts: [(name("a"), saved(Some("hidden-token")))].into(),
    })
    .unwrap();
    assert!(Config::parse(&good).is_ok(), "{good}");
    let changed = |from: &str, to: &str| good.replacen(from, to, 1);
    let cases = [
        ("current = \"b\"\n".to_owned() + &good, "current: \"b\" is none of the contexts; allowed are a"),
        ("current = 5\n".to_owned(), "current is of type integer; allowed is a text"),
        ("curent = \"a\"\n".to_owned(), "curent: there is no such key; allowed are current, contexts"),
        ("contexts = 5\n".to_owned(), "contexts is of type integer"),
        ("[contexts]\na = 5\n".to_owned(), "contexts.a is of type integer; allowed is a table"),
        ("[contexts.\"a/b\"]\n".to_owned(), "contexts.a/b: \"a/b\" is no name of a context"),
        (changed("server = ", "sever = "), "contexts.a.sever: there is no such key"),
        (changed("https://", "http://"), "contexts.a.server: \"http://127.0.0.1:8443\" is no address"),
        (changed("hidden-token", "hidden token"), "contexts.a.token: a token is 1 to 4096 printable"),
        (changed("\"hidden-token\"", "[\"hidden\"]"), "contexts.a.token is of type array; allowed is a text"),
        (changed("1764547200000", "-1"), "contexts.a.expires_at is of type integer; allowed is millisec"),
        (changed("1764547200000", "\"soon\""), "contexts.a.expires_at is of type string"),
        ("[contexts.a]\nserver = \"https://a:1\"\n".to_owned(), "contexts.a.ca_pem is missing"),
    ];
    for (text, expected) in cases {
        let wrong = Config::parse(&text).unwrap_err();
        assert!(wrong.starts_with(expected), "{wrong:?} for {text}");
        assert!(wrong.lines().count() == 1 && !wrong.contains("hidden"), "{wrong:?}");
    }
}

#[test]
fn a_file_cut_short_anywhere_is_an_error_of_one_line_or_a_config() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let config =
        Config { current: Some(name("a")), contexts: [(name("a"), saved(Some("hidden-token")))].into() };
    let text = toml::to_string_pretty(&config).unwrap();
    for end in 0..text.len() {
        fs::write(&path, &text[..end]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Err(error) = Config::read(&path) {
            let Failure::Usage(said) = error else { panic!("not a usage error") };
            assert!(said.lines().count() == 1 && said.contains("config.toml: "), "{end}: {said}");
        }
    }
}

#[test]
fn bytes_that_are_no_text_and_files_without_an_end_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for bytes in [b"\xff\xfe".to_vec(), vec![b'#'; 1024 * 1024 + 1]] {
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Config::read(&path), Err(Failure::Usage(_))));
    }
    assert!(matches!(Config::read(folder.path()), Err(Failure::Usage(_))));
    let many: String =
        (0..300).map(|n| format!("[contexts.c{n}]\nserver = \"https://a:1\"\nca_pem = \"\"\n")).collect();
    assert!(Config::parse(&many).unwrap_err().contains("allowed are 256"));
}

#[test]
fn names_are_no_paths() {
    for good in ["home", "A-1_b", "0"] {
        assert_eq!(name(good).as_str(), good);
    }
    for bad in ["", "a.b", "../a", "a/b", "-a", "a b", "ä", &"a".repeat(65)] {
        assert!(bad.parse::<ContextName>().is_err(), "{bad:?}");
    }
}
