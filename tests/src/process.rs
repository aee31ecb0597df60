//! A server program that a test starts and stops.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Browser, Http};

/// A running program. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The address where it listens.
    pub address: SocketAddr,
    printed: Vec<String>,
}

impl Process {
    /// Starts the program, and reads this many lines of its output. The first line says where it
    /// listens.
    pub fn start(program: &str, arguments: &[&str], lines: usize) -> Self {
        Self::start_in(Path::new("."), program, arguments, lines)
    }

    /// Starts the program in this directory. If it uses Datastore, it uses the emulator of
    /// `DATASTORE_URL`.
    pub fn start_in(directory: &Path, program: &str, arguments: &[&str], lines: usize) -> Self {
        let mut command = Command::new(program);
        let command = command.args(arguments).current_dir(directory).stdout(Stdio::piped());
        if let Ok(emulator) = std::env::var("DATASTORE_URL") {
            command.env("DATASTORE_EMULATOR_HOST", emulator.trim_start_matches("http://"));
        }
        let mut child = command.spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let printed: Vec<String> =
            output.lines().take(lines).map(|line| line.expect("text")).collect();
        let address = printed[0].strip_prefix("listening on http://").expect("where it listens");
        Self { child, address: address.parse().expect("an address"), printed }
    }

    /// Returns what the program printed after this label.
    pub fn printed(&self, label: &str) -> &str {
        let found = self.printed.iter().find_map(|line| line.strip_prefix(label));
        found.unwrap_or_else(|| panic!("{label:?} is not in {:?}", self.printed))
    }

    /// Sends `SIGTERM`, the signal with which containers and services are stopped.
    pub fn terminate(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()), "it is told to end");
    }

    /// Waits until the program has ended by itself, and returns whether it succeeded.
    pub fn ended(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Returns a browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(Http::to(self.address))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
