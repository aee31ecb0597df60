//! A server program that a test starts and stops.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::{Browser, Http};

/// The address of a program that has not said yet where it listens.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A running program. Dropping this kills the program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The address where the program listens.
    pub address: SocketAddr,
    lines: Vec<String>,
    /// Stays open, because a program that prints into a closed pipe panics.
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the program, and reads the first `line_count` lines of its output. The first line
    /// says where the program listens.
    pub fn start(program: &str, arguments: &[&str], line_count: usize) -> Self {
        Self::start_in(Path::new("."), program, arguments, line_count)
    }

    /// Does the same as [`start`](Self::start), in this directory. If the program uses Datastore,
    /// it uses the emulator of `DATASTORE_URL`.
    pub fn start_in(
        directory: &Path,
        program: &str,
        arguments: &[&str],
        line_count: usize,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory);
        if let Ok(emulator) = std::env::var("DATASTORE_URL") {
            command.env("DATASTORE_EMULATOR_HOST", emulator.trim_start_matches("http://"));
        }
        Self::start_command(&mut command, line_count)
    }

    /// Does the same as [`start`](Self::start), with these environment variables, and without
    /// Datastore.
    pub fn start_with(
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
        line_count: usize,
    ) -> Self {
        let mut command = Command::new(program);
        Self::start_command(command.args(arguments).envs(variables.iter().copied()), line_count)
    }

    fn start_command(command: &mut Command, line_count: usize) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("the output is piped"));
        // From here on, dropping the process kills the program, also if this function panics.
        let mut process = Self { child, address: UNKNOWN, lines: Vec::new(), output };
        let lines = process.output.by_ref().lines().take(line_count);
        process.lines = lines.map(|line| line.expect("UTF-8")).collect();
        let address = process.printed("listening on http://").parse();
        process.address = address.expect("the program prints where it listens");
        process
    }

    /// Returns the rest of the line that begins with this label.
    pub fn printed(&self, label: &str) -> &str {
        let found = self.lines.iter().find_map(|line| line.strip_prefix(label));
        found.unwrap_or_else(|| panic!("no line begins with {label:?}: {:?}", self.lines))
    }

    /// Sends `SIGTERM`, the signal with which containers and services are stopped.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends this signal, such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "`kill` failed");
    }

    /// Waits until the program exits by itself, and returns whether it succeeded.
    pub fn wait_for_success(&mut self) -> bool {
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
