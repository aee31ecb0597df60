//! Real Flask-Login and the parity server give the same responses to the same requests.

use std::process::Command;

#[test]
fn two_thousand_random_steps_find_no_difference_from_flask_login() {
    compare(&[]);
}

#[test]
fn two_thousand_random_steps_with_server_side_sessions_find_no_difference_from_flask_login() {
    compare(&["--server-sessions"]);
}

fn compare(options: &[&str]) {
    let Some(python) = std::env::var_os("KEEP_PYTHON") else {
        panic!("KEEP_PYTHON is not set: run `cargo xtask test`, which sets it");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/parity/differential.py");
    let server = env!("CARGO_BIN_EXE_parity-server");
    let mut command = Command::new(python);
    command.args([script, "--server", server, "--steps", "2000"]).args(options);
    let output = command.output().expect("Python starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    println!("{stdout}");
    assert!(output.status.success(), "{stdout}\n{stderr}");
}
