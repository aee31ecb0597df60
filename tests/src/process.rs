//! A program that serves, started and stopped by a test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Browser, Http};

/// A started program; it ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    told: Vec<String>,
}

impl Process {
    /// Starts the program, and reads this many lines of what it prints; the first says where it
    /// listens.
    pub fn start(program: &str, arguments: &[&str], lines: usize) -> Self {
        Self::start_in(Path::new("."), program, arguments, lines)
    }

    /// The same, in this directory. What is kept on Datastore is kept in the emulator of `DATASTORE_URL`.
    pub fn start_in(directory: &Path, program: &str, arguments: &[&str], lines: usize) -> Self {
        let mut command = Command::new(program);
        let command = command.args(arguments).current_dir(directory).stdout(Stdio::piped());
        if let Ok(emulator) = std::env::var("DATASTORE_URL") {
            command.env("DATASTORE_EMULATOR_HOST", emulator.trim_start_matches("http://"));
        }
        let mut child = command.spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let told: Vec<String> =
            output.lines().take(lines).map(|line| line.expect("text")).collect();
        let address = told[0].strip_prefix("listening on http://").expect("where it listens");
        Self { child, address: address.parse().expect("an address"), told }
    }

    /// What it printed after this label.
    pub fn told(&self, label: &str) -> &str {
        let found = self.told.iter().find_map(|line| line.strip_prefix(label));
        found.unwrap_or_else(|| panic!("{label:?} is not in {:?}", self.told))
    }

    /// Sends the signal with which containers and services are stopped.
    pub fn terminate(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()), "it is told to end");
    }

    /// Waits until it has ended by itself; whether all went well.
    pub fn ended(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// A browser without cookies.
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
