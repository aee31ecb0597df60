//! A server that runs, stops, crashes and starts again.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use super::dispatch;
use super::guardian::Processes;
use super::instance::Instance;
use super::kind::Kind;
use super::wait::{POLL_INTERVAL, TIMEOUT, wait_while};

/// A server. Dropping this ends its processes and removes its directory.
#[derive(Debug)]
pub struct Server {
    pub(super) instance: Instance,
    /// The processes, while the server runs.
    processes: Option<Processes>,
    /// The additional arguments of its command line.
    arguments: Vec<String>,
    /// The other servers of this server's group, such as its replica. They end with this server.
    pub(super) members: Vec<Self>,
}

impl Server {
    /// Installs the program and creates the directory, but does not start the server.
    pub(super) fn prepare(kind: Kind) -> Result<Self, String> {
        let instance = Instance::create(kind, dispatch::find_or_install(kind)?)?;
        Ok(Self { instance, processes: None, arguments: Vec::new(), members: Vec::new() })
    }

    /// Returns the server's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.instance.kind
    }

    /// Returns the directory that the server may write to. Dropping the server removes it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.instance.directory
    }

    /// Returns the port where the server listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.instance.port
    }

    /// Returns the server's URL, with the name and the password of a user who has all rights.
    #[must_use]
    pub fn url(&self) -> String {
        let members: Vec<_> = self.members.iter().map(|member| &member.instance).collect();
        dispatch::url(&self.instance, &members)
    }

    /// Returns the other servers of this server's group. For sentinels, these are the master, its
    /// replica and the other sentinels, in this order. For a cluster, these are the other nodes,
    /// and the first two of them are masters.
    pub fn members(&mut self) -> &mut [Self] {
        &mut self.members
    }

    /// Adds arguments to the command line, from the next start on.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Starts the server and waits until it responds. The server has the data that its previous run
    /// wrote to disk, if there was one.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not respond.
    pub fn start_and_wait(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        // Right after a crash the server may fail to start, for example because the port or a file
        // is still in use. So this tries again.
        while begun.elapsed() < TIMEOUT {
            self.spawn()?;
            while self.is_running() {
                if dispatch::is_ready(&self.instance) {
                    return Ok(());
                }
                sleep(POLL_INTERVAL);
                if begun.elapsed() > TIMEOUT {
                    break;
                }
            }
            self.kill();
            sleep(POLL_INTERVAL);
        }
        let log = fs::read_to_string(self.directory().join("log")).unwrap_or_default();
        Err(format!("{} does not respond:\n{log}", self.instance.program.display()))
    }

    /// Starts the server, and does not wait until it responds.
    ///
    /// # Errors
    ///
    /// Returns an error if the server can't be started.
    pub fn spawn(&mut self) -> Result<(), String> {
        let instance = &self.instance;
        let mut command_line: Vec<OsString> = Vec::new();
        command_line.extend(dispatch::command_prefix(instance).into_iter().map(OsString::from));
        command_line.push(instance.program.clone().into());
        command_line.extend(dispatch::arguments(instance).into_iter().map(OsString::from));
        command_line.extend(self.arguments.iter().map(OsString::from));
        let shell = dispatch::shell(instance.kind)?;
        self.processes = Some(Processes::start(shell, &instance.directory, command_line)?);
        Ok(())
    }

    /// Kills the server as a crash would: without a shutdown, and without flushing anything.
    pub fn kill(&mut self) {
        if let Some(processes) = self.processes.take() {
            processes.kill();
        }
    }

    /// Shuts the server down, so that it first writes all its data to disk. The Firestore emulator
    /// loses its data.
    pub fn stop(&mut self) {
        if let Some(processes) = &self.processes {
            processes.signal(dispatch::stop_signal(&self.instance));
        }
        wait_while(|| self.is_running());
        self.kill();
    }

    /// Suspends the server's processes, so that they don't respond.
    pub fn suspend(&self) {
        if let Some(processes) = &self.processes {
            processes.suspend();
        }
    }

    /// Resumes the server's processes.
    pub fn resume(&self) {
        if let Some(processes) = &self.processes {
            processes.resume();
        }
    }

    fn is_running(&self) -> bool {
        self.processes.as_ref().is_some_and(Processes::is_running)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A suspended process can't notice that its parent has ended.
        self.resume();
        if let Some(processes) = self.processes.take() {
            processes.end();
        }
    }
}
