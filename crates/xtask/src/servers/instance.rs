//! What a server runs with: its program, its port, and a directory of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::kind::Kind;
use super::process::run_quietly;
use crate::provision::is_root;

/// The program, the directory and the port of a server. Dropping this removes the directory.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) kind: Kind,
    pub(super) program: PathBuf,
    /// The directory that the server may write to.
    pub(super) directory: PathBuf,
    /// The port where the server listens.
    pub(super) port: u16,
}

impl Instance {
    /// Creates a directory for a server, and finds a free port.
    pub(super) fn create(kind: Kind, program: PathBuf) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-keep-{}-{}-{number}", kind.name(), std::process::id());
        let directory = std::env::temp_dir().join(name);
        let port = free_port(kind)?;
        fs::create_dir(&directory).map_err(|error| error.to_string())?;
        let instance = Self { kind, program, directory, port };
        give_to_server(&instance.directory)?;
        Ok(instance)
    }

    /// Writes a file into the directory.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Lets the server write to a file of the directory.
    pub(super) fn make_writable(&self, name: &str) -> Result<(), String> {
        give_to_server(&self.directory.join(name))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Returns a free port. For a node of a Redis Cluster, the port 10,000 above it is free as well,
/// because the node listens on both.
fn free_port(kind: Kind) -> Result<u16, String> {
    for _ in 0..1_000 {
        let socket = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = socket.local_addr().map_err(|error| error.to_string())?.port();
        let bus_port = port.checked_add(10_000);
        if kind != Kind::RedisCluster
            || bus_port.is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        {
            return Ok(port);
        }
    }
    Err("found no free port in 1,000 attempts".to_owned())
}

/// Makes the user who runs the server the owner of a file or a directory.
fn give_to_server(path: &Path) -> Result<(), String> {
    if is_root() { run_quietly(Command::new("chown").arg("nobody").arg(path)) } else { Ok(()) }
}
