//! Processes of this machine: starting, finding and stopping them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::provision::is_root;

/// Sends a signal to those of these processes that still exist.
pub(super) fn signal(signal: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let processes = processes.iter().map(ToString::to_string);
    let _ = Command::new("kill").arg(signal).args(processes).stderr(Stdio::null()).status();
}

/// Checks whether a process is alive. A zombie, whose parent has not asked for its exit status, is
/// not.
pub(super) fn is_alive(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("Z (zombie)"))
}

/// Checks whether every thread of a process is stopped.
pub(super) fn is_stopped(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    threads.filter_map(Result::ok).all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)"))
    })
}

/// Returns the child processes of this one. PostgreSQL has one for each connection.
pub(super) fn children(process: u32) -> Vec<u32> {
    let parent = format!("PPid:\t{process}");
    let all = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == parent)
    };
    pids.filter(is_child).collect()
}

/// Returns a command that runs as an unprivileged user, because the servers refuse to run as root.
pub(super) fn unprivileged(program: &Path) -> Result<Command, String> {
    let mut command = Command::new(program);
    if is_root() {
        let id = |flag| {
            let answer = Command::new("id").args([flag, "nobody"]).output();
            let answer = answer.ok().and_then(|answer| String::from_utf8(answer.stdout).ok());
            answer.and_then(|text| text.trim().parse().ok()).ok_or("there is no user `nobody`")
        };
        command.uid(id("-u")?).gid(id("-g")?);
    }
    // This user may have no access to the tests' directory.
    command.current_dir("/");
    Ok(command)
}

/// Runs a command and waits until it ends.
pub(super) fn call(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed: {said}", command.get_program().to_string_lossy()))
}
