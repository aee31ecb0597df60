//! Google's emulators of Datastore. Where they can't be installed, another emulator is used instead
//! of both.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Kind, Server, in_path};
use crate::provision::install;
use crate::{run, tools};

/// The crate of the fallback emulator, and its version.
const OTHER: [&str; 2] = ["datastore-emulator", "0.1.14"];

/// Returns the emulator: a Java archive, or the program of the fallback emulator.
pub(super) fn program(kind: Kind) -> Result<PathBuf, String> {
    let found = archive(kind).or_else(|| {
        // The emulators are installed only where Debian's package manager knows Google's packages.
        // A machine that has the fallback emulator already keeps using it.
        if other().is_file() || !knows_packages() {
            return None;
        }
        install(&[package(kind)]).ok()?;
        archive(kind)
    });
    let Some(found) = found else { return built(kind) };
    if in_path(&["java"]).is_none() {
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

fn knows_packages() -> bool {
    let known = Command::new("apt-cache").args(["show", package(Kind::Datastore)]).output();
    known.is_ok_and(|known| known.status.success())
}

/// Returns the emulator's archive from an installed Google Cloud CLI.
fn archive(kind: Kind) -> Option<PathBuf> {
    let name = match kind {
        Kind::Firestore => "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar",
        _ => "platform/cloud-datastore-emulator/CloudDatastore.jar",
    };
    let gcloud = in_path(&["gcloud"]).and_then(|gcloud| gcloud.canonicalize().ok());
    let beside = gcloud.and_then(|gcloud| gcloud.ancestors().nth(2).map(Path::to_owned));
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("google-cloud-sdk"));
    let roots =
        ["/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk"];
    let roots = roots.map(PathBuf::from).into_iter().chain(beside).chain(home);
    roots.map(|root| root.join(name)).find(|archive| archive.is_file())
}

/// Returns the path of the fallback emulator.
fn other() -> PathBuf {
    tools().join("bin").join(OTHER[0])
}

/// Returns the fallback emulator, which is built on first use.
fn built(kind: Kind) -> Result<PathBuf, String> {
    let (program, [name, version]) = (other(), OTHER);
    if program.is_file() {
        return Ok(program);
    }
    println!("Google's emulators are not installed; building {name} instead");
    let built = (|| {
        if in_path(&["protoc"]).is_none() {
            install(&["protobuf-compiler"])?;
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["install", "--quiet", "--locked", "--version", version, "--root"]);
        run(cargo.arg(tools()).arg(name))
    })();
    let instead = format!(
        "install {} from Google's packages (https://cloud.google.com/sdk/docs/install#deb), or set {} to \
         an emulator of yours",
        package(kind),
        kind.variable(),
    );
    built.map_err(|error| format!("no emulator of Datastore: {error}\n{instead}"))?;
    Ok(program)
}

fn is_archive(program: &Path) -> bool {
    program.extension().is_some_and(|extension| extension == "jar")
}

/// Returns the words that precede the program in its command line.
pub(super) fn before(program: &Path) -> Vec<String> {
    let java: &[&str] = &["java", "-Xmx512m", "-Duser.language=en", "-cp"];
    let words = if is_archive(program) { java } else { &[] };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns the signal that makes the emulator write all its data to disk and exit.
pub(super) fn end(program: &Path) -> &'static str {
    if is_archive(program) { "-TERM" } else { "-INT" }
}

/// Returns the emulator's arguments. The Firestore emulator loses its data when it exits. The
/// others write theirs to disk then, and the Datastore emulator does so from time to time as well.
pub(super) fn arguments(server: &Server) -> Vec<String> {
    let (host, port) = ("127.0.0.1", server.port);
    let own = server.directory.display();
    let place = [format!("--host={host}"), format!("--port={port}")];
    match server.kind {
        _ if !is_archive(&server.program) => {
            vec!["--host-port".to_owned(), format!("{host}:{port}")]
        }
        Kind::Firestore => {
            let class = "com.google.cloud.datastore.emulator.firestore.CloudFirestore";
            let mode = "--database-mode=datastore-mode";
            [class, mode].map(str::to_owned).into_iter().chain(place).collect()
        }
        _ => {
            let class = "com.google.cloud.datastore.emulator.CloudDatastore";
            let file = format!("--storage_file={own}/data.bin");
            let settings = [
                "--store_index_configuration_on_disk=false",
                "--firestore_in_datastore_mode",
                &file,
                &own.to_string(),
            ];
            let settings = settings.map(str::to_owned);
            [class, "start"].map(str::to_owned).into_iter().chain(place).chain(settings).collect()
        }
    }
}

/// Checks whether the emulator on this port responds that it is up.
pub(super) fn is_ready(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with(b" 200"))
}
