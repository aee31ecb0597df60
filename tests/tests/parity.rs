//! Real Flask-Login and the parity server respond alike to the same requests.

use std::process::Command;

#[test]
fn two_thousand_random_steps_find_no_difference_from_flask_login() {
    compare(&[]);
}

#[test]
fn two_thousand_random_steps_with_server_side_sessions_find_no_difference_from_flask_login() {
    compare(&["--server-sessions"]);
}

fn compare(more: &[&str]) {
    let Some(python) = std::env::var_os("KEEP_PYTHON") else {
        panic!("KEEP_PYTHON is not set: run `cargo xtask test tests`, which provides it");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/parity/differential.py");
    let server = env!("CARGO_BIN_EXE_parity-server");
    let mut run = Command::new(python);
    run.args([script, "--server", server, "--steps", "2000"]).args(more);
    let run = run.output();
    let run = run.expect("python starts");
    let (told, wrong) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("{told}");
    assert!(run.status.success(), "{told}\n{wrong}");
}
