//! Google's two emulators of Datastore. Where they can't be installed, the fallback emulator is
//! used instead of both: the crate `datastore-emulator`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::instance::Instance;
use super::kind::Kind;
use crate::provision::{find_program, install};
use crate::{run, tools_directory};

/// The crate of the fallback emulator, and its version.
const FALLBACK: [&str; 2] = ["datastore-emulator", "0.1.14"];

/// Returns the path of the emulator: a Java archive, or the program of the fallback emulator. If
/// there is neither, installs one of the two.
pub(super) fn find_or_install(kind: Kind) -> Result<PathBuf, String> {
    let found = find_archive(kind).or_else(|| {
        // Google's emulators are installed only where Debian's package manager knows Google's
        // packages. A machine that has built the fallback emulator keeps using it.
        if fallback_path().is_file() || !apt_knows_packages() {
            return None;
        }
        install(&[package(kind)]).ok()?;
        find_archive(kind)
    });
    let Some(found) = found else { return find_or_build_fallback(kind) };
    if find_program(&["java"]).is_none() {
        install(&["default-jre-headless"])?;
    }
    Ok(found)
}

fn package(kind: Kind) -> &'static str {
    match kind {
        Kind::Firestore => "google-cloud-cli-firestore-emulator",
        _ => "google-cloud-cli-datastore-emulator",
    }
}

/// Checks whether Debian's package manager knows Google's packages.
fn apt_knows_packages() -> bool {
    let known = Command::new("apt-cache").args(["show", package(Kind::Datastore)]).output();
    known.is_ok_and(|known| known.status.success())
}

/// Returns the emulator's archive from an installed Google Cloud CLI.
fn find_archive(kind: Kind) -> Option<PathBuf> {
    let name = match kind {
        Kind::Firestore => "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar",
        _ => "platform/cloud-datastore-emulator/CloudDatastore.jar",
    };
    let gcloud = find_program(&["gcloud"]).and_then(|gcloud| gcloud.canonicalize().ok());
    let gcloud_root = gcloud.and_then(|gcloud| gcloud.ancestors().nth(2).map(Path::to_owned));
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("google-cloud-sdk"));
    let roots =
        ["/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk"];
    let roots = roots.map(PathBuf::from).into_iter().chain(gcloud_root).chain(home);
    roots.map(|root| root.join(name)).find(|archive| archive.is_file())
}

/// Returns the path of the fallback emulator.
fn fallback_path() -> PathBuf {
    tools_directory().join("bin").join(FALLBACK[0])
}

/// Returns the path of the fallback emulator, which is built on first use.
fn find_or_build_fallback(kind: Kind) -> Result<PathBuf, String> {
    let (program, [name, version]) = (fallback_path(), FALLBACK);
    if program.is_file() {
        return Ok(program);
    }
    println!("Google's emulators are not installed; building {name} instead");
    let result = (|| {
        if find_program(&["protoc"]).is_none() {
            install(&["protobuf-compiler"])?;
        }
        let mut cargo = Command::new(crate::cargo());
        cargo.args(["install", "--quiet", "--locked", "--version", version, "--root"]);
        run(cargo.arg(tools_directory()).arg(name))
    })();
    let instead = format!(
        "install {} from Google's packages (https://cloud.google.com/sdk/docs/install#deb), or set {} to \
         the URL of an emulator of yours",
        package(kind),
        kind.variable(),
    );
    result.map_err(|error| format!("no emulator of Datastore: {error}\n{instead}"))?;
    Ok(program)
}

fn is_archive(program: &Path) -> bool {
    program.extension().is_some_and(|extension| extension == "jar")
}

/// Returns the words that precede the program in its command line.
pub(super) fn command_prefix(program: &Path) -> Vec<String> {
    let java: &[&str] = &["java", "-Xmx512m", "-Duser.language=en", "-cp"];
    let words = if is_archive(program) { java } else { &[] };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns the signal that makes the emulator exit in order. Before this, the emulator writes its
/// data to disk, unless it is the Firestore emulator.
pub(super) fn stop_signal(program: &Path) -> &'static str {
    if is_archive(program) { "-TERM" } else { "-INT" }
}

/// Returns the emulator's arguments. The Firestore emulator has its data only in memory, and loses
/// the data when it exits. The Datastore emulator and the fallback emulator write their data to disk
/// when they exit. The Datastore emulator also writes them from time to time while it runs.
pub(super) fn arguments(instance: &Instance) -> Vec<String> {
    let (host, port) = ("127.0.0.1", instance.port);
    let directory = instance.directory.display();
    let address = [format!("--host={host}"), format!("--port={port}")];
    match instance.kind {
        _ if !is_archive(&instance.program) => {
            vec!["--host-port".to_owned(), format!("{host}:{port}")]
        }
        Kind::Firestore => {
            let class = "com.google.cloud.datastore.emulator.firestore.CloudFirestore";
            let mode = "--database-mode=datastore-mode";
            [class, mode].map(str::to_owned).into_iter().chain(address).collect()
        }
        _ => {
            let class = "com.google.cloud.datastore.emulator.CloudDatastore";
            let file = format!("--storage_file={directory}/data.bin");
            let settings = [
                "--store_index_configuration_on_disk=false",
                "--firestore_in_datastore_mode",
                &file,
                &directory.to_string(),
            ];
            let settings = settings.map(str::to_owned);
            [class, "start"].map(str::to_owned).into_iter().chain(address).chain(settings).collect()
        }
    }
}

/// Checks whether the emulator on this port responds with status 200.
pub(super) fn is_ready(port: u16) -> bool {
    let read_status = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status_line = [0; 12];
        stream.read_exact(&mut status_line)?;
        Ok::<_, std::io::Error>(status_line)
    };
    read_status().is_ok_and(|status_line| status_line.ends_with(b" 200"))
}
