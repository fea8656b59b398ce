//! Stores for tests: SQLite in a folder, and PostgreSQL in a cluster that the test program starts for itself and that ends
//! with it.

use super::{Database, Store};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Longer than a test.
const LEASE: Duration = Duration::from_secs(3600);
/// Who runs PostgreSQL where the tests run as root, which it refuses: `nobody`.
const NOBODY: &str = "65534";

/// One cluster in a folder under `/tmp`, on a socket there. It says the folder, and ends when its standard input does:
/// nothing outlives the test program, however that ends.
const CLUSTER: &str = r#"
set -eu
dir=$(mktemp -d /tmp/edgewright-pg-XXXXXX)
trap 'rm -rf "$dir"' EXIT
"$1/initdb" -D "$dir/data" -U edgewright -A trust --no-sync -E UTF8 --locale=C.UTF-8 >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
"$1/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c max_connections=400 >"$dir/log" 2>&1 </dev/null &
server=$!
until [ -S "$dir/.s.PGSQL.5432" ] && grep -q 'ready to accept' "$dir/log"; do
    kill -0 "$server" || { cat "$dir/log" >&2; exit 1; }
    sleep 0.05
done
echo "$dir"
read -r _ || true
kill -QUIT "$server" 2>/dev/null || true
wait "$server" 2>/dev/null || true
"#;

/// Both databases, each with nothing in it: a fresh folder and a fresh database.
pub(crate) async fn databases() -> Vec<Database> {
    let mut databases = vec![Database::Folder];
    databases.extend(postgres().await);
    databases
}

/// Opens a store that acts for its fleet.
pub(crate) async fn open(database: &Database) -> (tempfile::TempDir, Store) {
    let (folder, store) = open_without_lead(database).await;
    store.take_lead("a test", false, LEASE).await.unwrap();
    (folder, store)
}

/// Opens a store of a server that does not act yet, where it matters.
pub(crate) async fn open_without_lead(database: &Database) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open_again(folder.path(), database).await;
    (folder, store)
}

/// Opens the store of another server on the same folder and database.
pub(crate) async fn open_again(folder: &Path, database: &Database) -> Store {
    Store::connect(folder, database).await.unwrap()
}

/// A fresh store on each database. A test that fails says on which.
pub(crate) async fn stores() -> impl Iterator<Item = (tempfile::TempDir, Store)> {
    let mut stores = Vec::new();
    for database in databases().await {
        stores.push((format!("{database:?}"), open(&database).await));
    }
    stores.into_iter().map(|(name, store)| {
        eprintln!("on {name}");
        store
    })
}

/// A fresh database in this program's cluster.
async fn postgres() -> Option<Database> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let socket = cluster()?;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let address = |name: &str| -> super::Address {
        format!("postgres://edgewright@localhost/{name}?host={}", socket.display()).parse().unwrap()
    };
    super::database::run(&address("postgres"), &format!("CREATE DATABASE {name}")).await.unwrap();
    Some(Database::Address(address(&name)))
}

/// The folder of the cluster's socket; none where PostgreSQL is not installed.
fn cluster() -> Option<&'static Path> {
    static SOCKET: OnceLock<Option<PathBuf>> = OnceLock::new();
    SOCKET.get_or_init(start_cluster).as_deref()
}

fn start_cluster() -> Option<PathBuf> {
    let Some(programs) = programs() else {
        eprintln!("skipped: PostgreSQL is not installed; `cargo xtask setup` brings it");
        return None;
    };
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-c", CLUSTER, "sh"]).arg(&programs).current_dir("/");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(!said.trim().is_empty(), "PostgreSQL did not start");
    // Its standard input stays open as long as this program lives.
    std::mem::forget(child);
    Some(said.trim().into())
}

/// The folder with `postgres` and `initdb`: Debian keeps them off the path, beside each other.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    folders.into_iter().find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
}
