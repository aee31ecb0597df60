//! The processes of a running server, and the guardian that ends them when the tests end.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::process::{children, is_alive, is_stopped, send_signal};
use super::wait::wait_while;

/// A shell script that starts the server and prints the server's process id. The script kills the
/// server when the script reads a line, or when its standard input is closed, which happens when
/// this process ends for whatever reason. If the input was closed, the script also removes the
/// server's directory.
const GUARDIAN: &str = r#"exec 3<&0; directory=$1; shift; "$@" </dev/null >&2 & echo $!
    read _ <&3; read_status=$?; kill -KILL $!; wait; test $read_status = 0 && exit
    for n in 1 2 3 4 5 6 7 8 9; do rm -rf "$directory" && exit; sleep 0.2; done"#;

/// The processes of a server.
#[derive(Debug)]
pub(super) struct Processes {
    /// The shell that runs [`GUARDIAN`].
    guardian: Child,
    /// The id of the server's own process.
    server: u32,
}

impl Processes {
    /// Starts a server: the shell runs [`GUARDIAN`], which runs the command line in the directory.
    /// The output goes to the file `log` in the directory.
    pub(super) fn start(
        mut shell: Command,
        directory: &Path,
        command_line: Vec<OsString>,
    ) -> Result<Self, String> {
        let log = fs::File::create(directory.join("log")).map_err(|error| error.to_string())?;
        shell.args(["-c", GUARDIAN, "guardian"]).arg(directory).args(command_line);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        // Ctrl-C must reach only the tests, not the server. The server ends with the tests.
        shell.process_group(0).current_dir(directory);
        let mut guardian = shell.spawn().map_err(|error| error.to_string())?;
        let mut pid = String::new();
        if let Some(stdout) = guardian.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut pid);
        }
        let server = pid.trim().parse().map_err(|_| "the server did not start".to_owned())?;
        Ok(Self { guardian, server })
    }

    /// Checks whether the server's own process is alive.
    pub(super) fn is_running(&self) -> bool {
        is_alive(self.server)
    }

    /// Sends a signal to the server's own process.
    pub(super) fn signal(&self, signal: &str) {
        send_signal(signal, &[self.server]);
    }

    /// Kills the server as a crash would.
    pub(super) fn kill(mut self) {
        let children = children(self.server);
        if let Some(mut pipe) = self.guardian.stdin.take() {
            let _ = pipe.write_all(b"kill\n");
        }
        let _ = self.guardian.wait();
        // The server's child processes would respond for a while longer before they notice that
        // the server has ended.
        send_signal("-KILL", &children);
        wait_while(|| children.iter().any(|child| is_alive(*child)));
    }

    /// Kills the server, and removes its directory.
    pub(super) fn end(mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }

    /// Suspends the processes, so that they don't respond.
    pub(super) fn suspend(&self) {
        let pids = self.pids();
        send_signal("-STOP", &pids);
        // On a busy machine, a thread may run and respond for a while after the signal.
        wait_while(|| pids.iter().any(|pid| is_alive(*pid) && !is_stopped(*pid)));
    }

    /// Resumes the processes.
    pub(super) fn resume(&self) {
        send_signal("-CONT", &self.pids());
    }

    /// Returns the ids of the server's process and of its child processes.
    fn pids(&self) -> Vec<u32> {
        let mut pids = children(self.server);
        pids.push(self.server);
        pids
    }
}
