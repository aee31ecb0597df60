//! PostgreSQL and MariaDB, and PgBouncer in front of PostgreSQL.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::instance::Instance;
use super::kind::Kind;
use super::process::{run_quietly, unprivileged_command};
use crate::provision::find_program;

pub(super) fn url(instance: &Instance) -> String {
    let (scheme, database) = match instance.kind {
        Kind::MariaDb | Kind::MySql => ("mysql", "keep"),
        _ => ("postgres", "postgres"),
    };
    format!("{scheme}://keep:secret@127.0.0.1:{}/{database}", instance.port)
}

fn data_directory(instance: &Instance) -> String {
    instance.directory.join("data").display().to_string()
}

pub(super) fn set_up_postgres(instance: &Instance) -> Result<(), String> {
    instance.write("password", "secret")?;
    let mut set_up = unprivileged_command(&instance.program.with_file_name("initdb"))?;
    set_up.args(["--pgdata", &data_directory(instance)]);
    set_up.arg("--pwfile").arg(instance.directory.join("password"));
    set_up.args(["--username=keep", "--auth=password", "--encoding=UTF8", "--locale=C"]);
    run_quietly(&mut set_up)
}

/// The statements that MariaDB and MySQL run at each start. They create the database and its user,
/// if these are missing.
pub(super) const CREATE_DATABASE: &str = "CREATE DATABASE IF NOT EXISTS keep;\n\
    CREATE USER IF NOT EXISTS keep@'%' IDENTIFIED BY 'secret';\n\
    GRANT ALL ON *.* TO keep@'%' WITH GRANT OPTION;\n";

pub(super) fn set_up_mariadb(instance: &Instance) -> Result<(), String> {
    instance.write("users.sql", CREATE_DATABASE)?;
    let names = ["mariadb-install-db", "mysql_install_db"];
    let program = find_program(&names).ok_or("mariadb-install-db is missing: reinstall MariaDB")?;
    let mut set_up = unprivileged_command(&program)?;
    set_up.arg("--no-defaults").arg(format!("--datadir={}", data_directory(instance)));
    set_up.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
    // Without its own directory for temporary files, a server would use the temporary tables of
    // another server that is set up at the same time.
    let directory = &instance.directory;
    set_up.env("TMPDIR", directory).arg(format!("--tmpdir={}", directory.display()));
    run_quietly(&mut set_up)
}

/// Writes the settings of a PgBouncer in front of the PostgreSQL server on this port.
pub(super) fn set_up_pgbouncer(instance: &Instance, postgres_port: u16) -> Result<(), String> {
    let path = |name: &str| instance.directory.join(name).display().to_string();
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {}\nunix_socket_dir =\nauth_type = md5\nauth_file = {}\n\
         pool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 5\n",
        postgres_port,
        instance.port,
        path("users"),
    );
    instance.write("users", "\"keep\" \"secret\"\n")?;
    instance.write("proxy.ini", &text)
}

/// Returns the server's arguments. With them, the server does not flush its data to disk at each
/// commit. The operating system holds the unflushed data, so a crash of the process loses nothing.
pub(super) fn arguments(instance: &Instance) -> Vec<String> {
    let (port, data) = (instance.port, data_directory(instance));
    let directory = instance.directory.display();
    match instance.kind {
        Kind::Postgres => {
            let mut arguments = vec!["-D".to_owned(), data, "-p".to_owned(), port.to_string()];
            for setting in [
                "listen_addresses=127.0.0.1",
                "fsync=off",
                "max_connections=300",
                &format!("unix_socket_directories={directory}"),
            ] {
                arguments.extend(["-c".to_owned(), setting.to_owned()]);
            }
            arguments
        }
        Kind::MariaDb => vec![
            "--no-defaults".to_owned(),
            format!("--datadir={data}"),
            format!("--port={port}"),
            format!("--socket={directory}/socket"),
            format!("--init-file={directory}/users.sql"),
            format!("--pid-file={directory}/pid"),
            format!("--tmpdir={directory}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--innodb-flush-log-at-trx-commit=2".to_owned(),
            "--max-connections=300".to_owned(),
            "--innodb-flush-method=nosync".to_owned(),
        ],
        _ => vec![format!("{directory}/proxy.ini")],
    }
}

pub(super) fn is_ready(instance: &Instance) -> bool {
    let port = instance.port.to_string();
    let mut check = match instance.kind {
        Kind::Postgres => {
            let mut command = Command::new(instance.program.with_file_name("pg_isready"));
            command.args(["-q", "-h", "127.0.0.1", "-p", &port]);
            command
        }
        Kind::MariaDb => {
            let names = ["mariadb-admin", "mysqladmin"];
            let mut command = Command::new(find_program(&names).unwrap_or_else(|| names[0].into()));
            command.args(["--no-defaults", "-h", "127.0.0.1", "-u", "keep", "-psecret"]);
            command.args(["-P", &port, "ping"]);
            command
        }
        _ => return TcpStream::connect(("127.0.0.1", instance.port)).is_ok(),
    };
    let status = check.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Returns the path of the newest PostgreSQL. Debian keeps each version in a directory of its own,
/// outside of `PATH`.
pub(super) fn newest_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok();
    let newest = versions.into_iter().flatten().filter_map(Result::ok).filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let program = entry.path().join("bin/postgres");
        program.exists().then_some((version, program))
    });
    let newest = newest.max_by_key(|(version, _)| *version).map(|(_, program)| program);
    newest.or_else(|| find_program(&["postgres"]))
}
