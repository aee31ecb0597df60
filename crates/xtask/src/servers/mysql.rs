//! MySQL itself. Debian's stable releases have only MariaDB. So MySQL's newest release is
//! downloaded from the suite `sid`, with all its libraries, and unpacked below `target/`. Nothing
//! is installed.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Server, call, in_path};
use crate::provision::is_root;
use crate::{run, tools};

/// Returns the server's program: an installed `mysqld` that is not MariaDB, or the downloaded one.
pub(super) fn program() -> Result<PathBuf, String> {
    if let Some(installed) = in_path(&["mysqld"]).filter(|program| is_mysql(program)) {
        return Ok(installed);
    }
    let fetched = root().join("usr/sbin/mysqld");
    if !fetched.is_file() {
        println!("fetching MySQL from Debian's suite sid into {}", root().display());
        fetch().map_err(|error| {
            format!(
                "no MySQL: {error}\ninstall it so that `mysqld` is in the path, or set MYSQL_URL to a \
                 server of yours"
            )
        })?;
    }
    Ok(fetched)
}

fn is_mysql(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|version| !String::from_utf8_lossy(&version.stdout).contains("MariaDB"))
}

fn root() -> PathBuf {
    tools().join("mysql")
}

/// Downloads the package and everything that it needs, independently of what this system has, and
/// unpacks them.
fn fetch() -> Result<(), String> {
    let work = tools().join("mysql.new");
    let _ = fs::remove_dir_all(&work);
    let (lists, archives) = (work.join("lists"), work.join("cache/archives"));
    for directory in [lists.join("partial"), archives.join("partial"), work.join("root")] {
        fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    }
    let write = |name: &str, text: String| {
        fs::write(work.join(name), text).map_err(|error| error.to_string())
    };
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    write("sources.list", format!("deb [signed-by={keyring}] {} sid main\n", mirror()?))?;
    // An empty status means that nothing is installed, so all libraries are downloaded as well.
    write("status", String::new())?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-y"]);
        for (name, place) in [
            ("Dir::Etc::SourceList", work.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::State::Lists", lists.clone()),
            ("Dir::State::status", work.join("status")),
            ("Dir::Cache", work.join("cache")),
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
            call(Command::new("dpkg").arg("-x").arg(package).arg(work.join("root")))?;
        }
    }
    let _ = fs::remove_dir_all(root());
    fs::rename(work.join("root"), root()).map_err(|error| error.to_string())?;
    let _ = fs::remove_dir_all(work);
    Ok(())
}

/// Returns the mirror from which this system gets its packages.
fn mirror() -> Result<String, String> {
    let format = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let listed =
        Command::new("apt-get").args(format).output().map_err(|error| error.to_string())?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mirror = listed.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    mirror.map(str::to_owned).ok_or_else(|| "this system's packages are not Debian's".to_owned())
}

/// Returns the words that precede the program in its command line: it needs the loader and the
/// libraries that were downloaded with it.
pub(super) fn before(program: &Path) -> Vec<String> {
    if !program.starts_with(root()) {
        return Vec::new();
    }
    let in_directory = |directory: &Path, is_it: fn(&str) -> bool| {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries
            .map(|entry| entry.path())
            .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_it))
    };
    let libraries = in_directory(&root().join("usr/lib"), |name| name.ends_with("-linux-gnu"));
    let Some(libraries) = libraries else { return Vec::new() };
    let loader = in_directory(&libraries, |name| name.starts_with("ld-linux"));
    let shown = |path: PathBuf| path.display().to_string();
    let loader = loader.map(shown).unwrap_or_default();
    vec![loader, "--library-path".to_owned(), shown(libraries)]
}

/// Returns the arguments that every start needs.
fn common(server: &Server) -> Vec<String> {
    let mut arguments =
        vec!["--no-defaults".to_owned(), format!("--datadir={}/data", server.directory.display())];
    if server.program.starts_with(root()) {
        let messages = root().join("usr/share/mysql");
        arguments.push(format!("--lc-messages-dir={}", messages.display()));
    }
    if is_root() {
        // The program may be in a directory that no other user can read.
        arguments.push("--user=root".to_owned());
    }
    arguments
}

pub(super) fn set_up(server: &Server) -> Result<(), String> {
    server.write("users.sql", super::sql::CREATE_USERS)?;
    let words = before(&server.program);
    let mut set_up = match words.split_first() {
        Some((loader, rest)) => {
            let mut command = Command::new(loader);
            command.args(rest).arg(&server.program);
            command
        }
        None => Command::new(&server.program),
    };
    set_up.args(common(server)).arg("--initialize-insecure");
    call(set_up.current_dir(&server.directory))
}

/// Returns the server's arguments. Data that was not flushed to disk is held by the operating
/// system and not by the process, so a crash of the process loses nothing.
pub(super) fn arguments(server: &Server) -> Vec<String> {
    let (port, directory) = (server.port, server.directory.display());
    let own = [
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
    common(server).into_iter().chain(own).collect()
}

/// Checks whether the server sends its greeting, which it does once its users exist.
pub(super) fn is_ready(port: u16) -> bool {
    let greeting = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting)?;
        Ok::<_, std::io::Error>(greeting)
    };
    // The protocol version follows the packet's header.
    greeting().is_ok_and(|greeting| greeting[4] == 10)
}
