//! MySQL itself. Debian's stable releases have only MariaDB. So MySQL's newest release is
//! downloaded from Debian's suite `sid`, with all its libraries, and unpacked below `target/`.
//! Nothing is installed into the system.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::instance::Instance;
use super::process::run_quietly;
use super::sql::CREATE_DATABASE;
use crate::provision::{find_program, is_root};
use crate::{run, tools_directory};

/// Returns the path of an installed `mysqld` that is not MariaDB. If there is none, returns the path
/// of a downloaded `mysqld`, which is downloaded on first use.
pub(super) fn find_or_download() -> Result<PathBuf, String> {
    if let Some(installed) = find_program(&["mysqld"]).filter(|program| is_mysql(program)) {
        return Ok(installed);
    }
    let downloaded = mysql_directory().join("usr/sbin/mysqld");
    if !downloaded.is_file() {
        println!("downloading MySQL from Debian's suite sid into {}", mysql_directory().display());
        download().map_err(|error| {
            format!(
                "no MySQL: {error}\ninstall it so that `mysqld` is in the path, or set MYSQL_URL to the \
                 URL of a server of yours"
            )
        })?;
    }
    Ok(downloaded)
}

fn is_mysql(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|version| !String::from_utf8_lossy(&version.stdout).contains("MariaDB"))
}

fn mysql_directory() -> PathBuf {
    tools_directory().join("mysql")
}

/// Downloads the server's package and all packages that it needs, even those that this system has
/// installed, and unpacks them.
fn download() -> Result<(), String> {
    let work_directory = tools_directory().join("mysql.new");
    let _ = fs::remove_dir_all(&work_directory);
    let (lists, archives) = (work_directory.join("lists"), work_directory.join("cache/archives"));
    for directory in [lists.join("partial"), archives.join("partial"), work_directory.join("root")]
    {
        fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    }
    let write = |name: &str, text: String| {
        fs::write(work_directory.join(name), text).map_err(|error| error.to_string())
    };
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    write("sources.list", format!("deb [signed-by={keyring}] {} sid main\n", mirror()?))?;
    // apt reads from the status which packages are installed. The status is empty, so apt downloads
    // all libraries as well.
    write("status", String::new())?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-y"]);
        for (name, place) in [
            ("Dir::Etc::SourceList", work_directory.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::State::Lists", lists.clone()),
            ("Dir::State::status", work_directory.join("status")),
            ("Dir::Cache", work_directory.join("cache")),
        ] {
            command.arg("-o").arg(format!("{name}={}", place.display()));
        }
        run(command.args(arguments))
    };
    apt(&["update"])?;
    apt(&["--download-only", "--no-install-recommends", "install", "mysql-server-core"])?;
    for package in fs::read_dir(&archives).map_err(|error| error.to_string())? {
        let package = package.map_err(|error| error.to_string())?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run_quietly(
                Command::new("dpkg").arg("-x").arg(package).arg(work_directory.join("root")),
            )?;
        }
    }
    let _ = fs::remove_dir_all(mysql_directory());
    fs::rename(work_directory.join("root"), mysql_directory())
        .map_err(|error| error.to_string())?;
    let _ = fs::remove_dir_all(work_directory);
    Ok(())
}

/// Returns the mirror from which this system gets its packages.
fn mirror() -> Result<String, String> {
    let format = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let listed =
        Command::new("apt-get").args(format).output().map_err(|error| error.to_string())?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mirror = listed.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    mirror
        .map(str::to_owned)
        .ok_or_else(|| "this system gets its packages from no Debian mirror".to_owned())
}

/// Returns the words that precede the program in its command line. A downloaded program needs the
/// dynamic loader and the libraries that were downloaded with it.
pub(super) fn command_prefix(program: &Path) -> Vec<String> {
    if !program.starts_with(mysql_directory()) {
        return Vec::new();
    }
    let find_entry = |directory: &Path, matches: fn(&str) -> bool| {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries
            .map(|entry| entry.path())
            .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(matches))
    };
    let libraries =
        find_entry(&mysql_directory().join("usr/lib"), |name| name.ends_with("-linux-gnu"));
    let Some(libraries) = libraries else { return Vec::new() };
    let loader = find_entry(&libraries, |name| name.starts_with("ld-linux"));
    let text = |path: PathBuf| path.display().to_string();
    let loader = loader.map(text).unwrap_or_default();
    vec![loader, "--library-path".to_owned(), text(libraries)]
}

/// Returns the arguments that both the set-up and every start need.
fn common_arguments(instance: &Instance) -> Vec<String> {
    let mut arguments = vec![
        "--no-defaults".to_owned(),
        format!("--datadir={}/data", instance.directory.display()),
    ];
    if instance.program.starts_with(mysql_directory()) {
        let messages = mysql_directory().join("usr/share/mysql");
        arguments.push(format!("--lc-messages-dir={}", messages.display()));
    }
    if is_root() {
        // The program may be in a directory that no other user can read.
        arguments.push("--user=root".to_owned());
    }
    arguments
}

pub(super) fn set_up(instance: &Instance) -> Result<(), String> {
    instance.write("users.sql", CREATE_DATABASE)?;
    let prefix = command_prefix(&instance.program);
    let mut set_up = match prefix.split_first() {
        Some((loader, rest)) => {
            let mut command = Command::new(loader);
            command.args(rest).arg(&instance.program);
            command
        }
        None => Command::new(&instance.program),
    };
    set_up.args(common_arguments(instance)).arg("--initialize-insecure");
    run_quietly(set_up.current_dir(&instance.directory))
}

/// Returns the server's arguments. With them, the server does not flush its data to disk at each
/// commit. The operating system holds the unflushed data, so a crash of the process loses nothing.
pub(super) fn arguments(instance: &Instance) -> Vec<String> {
    let (port, directory) = (instance.port, instance.directory.display());
    let start_arguments = [
        format!("--port={port}"),
        format!("--socket={directory}/socket"),
        format!("--pid-file={directory}/pid"),
        format!("--init-file={directory}/users.sql"),
        format!("--tmpdir={directory}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--skip-name-resolve".to_owned(),
        "--mysqlx=0".to_owned(),
        "--secure-file-priv=NULL".to_owned(),
        "--disable-log-bin".to_owned(),
        "--innodb-flush-log-at-trx-commit=2".to_owned(),
        "--innodb-flush-method=nosync".to_owned(),
        "--max-connections=300".to_owned(),
    ];
    common_arguments(instance).into_iter().chain(start_arguments).collect()
}

/// Checks whether the server sends its greeting. The server does so only once its users exist.
pub(super) fn is_ready(port: u16) -> bool {
    let greeting = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting)?;
        Ok::<_, std::io::Error>(greeting)
    };
    // The first byte after the packet's header, which has 4 bytes, is the protocol version.
    greeting().is_ok_and(|greeting| greeting[4] == 10)
}
