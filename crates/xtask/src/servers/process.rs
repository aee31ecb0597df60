//! Processes of this machine: started, found, and told to stop.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::provision::is_root;

/// Sends a signal to those of these processes that are still there.
pub(super) fn signal(signal: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let processes = processes.iter().map(ToString::to_string);
    let _ = Command::new("kill").arg(signal).args(processes).stderr(Stdio::null()).status();
}

/// Whether a process still does something: one that nobody has asked how it ended does not.
pub(super) fn is_alive(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("Z (zombie)"))
}

/// Whether every thread of a process is stopped.
pub(super) fn is_stopped(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    threads.filter_map(Result::ok).all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)"))
    })
}

/// The processes that this one has started: PostgreSQL has one for each connection.
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

/// A command of an unprivileged user: the servers refuse to be root's.
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
    // It may not be allowed to be where the tests are.
    command.current_dir("/");
    Ok(command)
}

/// Runs a command to its end.
pub(super) fn call(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed: {said}", command.get_program().to_string_lossy()))
}

/// The first of these programs that there is, in the path or where servers are kept.
pub(super) fn in_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from))
        .collect();
    let found = |name: &&str| {
        directories.iter().map(|directory| directory.join(name)).find(|program| program.is_file())
    };
    names.iter().find_map(found)
}
