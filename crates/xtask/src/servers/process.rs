//! Processes of this machine: starting, finding and stopping them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::provision::is_root;

/// Sends a signal to the processes with these ids, as far as they still exist.
pub(super) fn send_signal(signal: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let pids = pids.iter().map(ToString::to_string);
    let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
}

/// Checks whether a process is alive. A zombie, which has ended but whose parent has not read its
/// exit status, is not alive.
pub(super) fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("Z (zombie)"))
}

/// Checks whether every thread of a process is stopped.
pub(super) fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    threads.filter_map(Result::ok).all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)"))
    })
}

/// Returns the ids of the child processes of a process. PostgreSQL has one child process for each
/// connection.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let parent_line = format!("PPid:\t{parent}");
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == parent_line)
    };
    pids.filter(is_child).collect()
}

/// Returns a command that does not run as root, because the servers refuse to run as
/// root. If this process runs as root, the command runs as the user `nobody`.
pub(super) fn unprivileged_command(program: &Path) -> Result<Command, String> {
    let mut command = Command::new(program);
    if is_root() {
        let id = |flag| {
            let output = Command::new("id").args([flag, "nobody"]).output();
            let output = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
            let id = output.and_then(|text| text.trim().parse().ok());
            id.ok_or("there is no user `nobody`: create it, or don't run as root")
        };
        command.uid(id("-u")?).gid(id("-g")?);
    }
    // `nobody` may have no access to the current directory.
    command.current_dir("/");
    Ok(command)
}

/// Runs a command and waits until it ends. Its output is shown only if it fails.
pub(super) fn run_quietly(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed: {errors}", command.get_program().to_string_lossy()))
}
