use std::fs;

use serde_json::json;

use super::*;

/// Returns what is wrong in a crate with these files.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let root = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = root.path().join("crates/a/src").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let krate = Crate::read(root.path(), &root.path().join("crates/a/src")).expect("a crate");
    let arrows: Vec<Arrow> = arrows_of(&krate).expect("arrows").into_iter().collect();
    let circles = circles(&arrows).into_iter().map(|circle| circle.join(" "));
    arrows.iter().filter_map(through_the_root).chain(circles).collect()
}

#[test]
fn circles_are_found_however_the_files_name_each_other() {
    let circle = "crates/a/src/b.rs crates/a/src/c.rs";
    for (b, c) in [
        ("use crate::c::C; pub struct B;", "use crate::b::B; pub struct C;"),
        ("pub struct B(crate::c::C);", "use super::b::B; pub struct C;"),
        ("use super::c; fn b() { c::c() }", "use crate::b as other; fn c() { other::b() }"),
        ("use crate::c::{self, C};", "fn c() { let b = crate::b::b(); }"),
        ("fn b() { println!(\"{}\", crate::c::c()) }", "impl crate::b::B for u8 {}"),
        ("use crate::d::C;", "use crate::b::B;"),
        ("use crate::d::renamed::C;", "use crate::b::B;"),
    ] {
        let d = "pub use crate::c::C; pub use crate::c as renamed;";
        let lib = ("lib.rs", "mod b; mod c; mod d;");
        assert_eq!(problems(&[lib, ("b.rs", b), ("c.rs", c), ("d.rs", d)]), [circle], "{b} {c}");
    }
}

#[test]
fn names_that_are_handed_on_tests_and_other_crates_are_no_circle() {
    for (b, c) in [
        ("use crate::c::C;", "#[cfg(test)] mod tests { use crate::b::B; }"),
        ("use crate::c::C;", "#[cfg(test)] use crate::b::B;"),
        ("use crate::c::C;", "use b::B;"),
        ("use crate::c::C;", "/// [`B`](crate::b::B)\npub struct C;"),
        ("pub use crate::c::C;", "use crate::b::B;"),
    ] {
        let lib = ("lib.rs", "mod b; mod c; pub use b::B; pub use c::C;");
        assert_eq!(problems(&[lib, ("b.rs", b), ("c.rs", c)]), [""; 0], "{b} {c}");
    }
    let files = [
        ("lib.rs", "mod b;"),
        ("b/mod.rs", "mod c; pub use c::C; pub struct B;"),
        ("b/c.rs", "use super::B; pub struct C;"),
    ];
    assert_eq!(problems(&files), [""; 0]);
}

#[test]
fn a_module_that_uses_what_it_hands_on_imports_it() {
    let files = [
        ("lib.rs", "mod b;"),
        ("b/mod.rs", "mod c; pub use c::C; pub struct B(C);"),
        ("b/c.rs", "use super::B; pub struct C;"),
    ];
    assert_eq!(problems(&files), ["crates/a/src/b/c.rs crates/a/src/b/mod.rs"]);
}

#[test]
fn an_import_from_the_root_is_reported_with_the_file_that_has_the_name() {
    let files =
        [("lib.rs", "mod b; mod c; pub use c::C;"), ("b.rs", "use crate::C;"), ("c.rs", "")];
    let expected = "crates/a/src/b.rs imports `C` from the crate's root: import it from \
        crates/a/src/c.rs, which has it";
    assert_eq!(problems(&files), [expected]);
}

#[test]
fn forbidden_imports_are_reported() {
    for (from, to, is_forbidden) in [
        ("login/stateless/rules.rs", "login/handle.rs", true),
        ("login/server_side/resolve.rs", "login/handle.rs", true),
        ("login/server_side/resolve.rs", "login/state.rs", false),
        ("login/handle.rs", "guard/gate.rs", true),
        ("guard/gate.rs", "login/handle.rs", false),
        ("cookie/seal.rs", "layer/config.rs", true),
    ] {
        let path = |name: &str| format!("crates/keep/src/{name}");
        let (name, is_through_root) = ("X".to_owned(), false);
        let arrow = Arrow { from: path(from), to: path(to), name, is_through_root };
        assert_eq!(forbidden(&arrow).is_some(), is_forbidden, "{from} {to}");
        let to = "std/time/Duration".to_owned();
        let is_rule = from.ends_with("rules.rs");
        assert_eq!(forbidden(&Arrow { to, ..arrow }).is_some(), is_rule, "{from}");
    }
}

#[test]
fn packages_that_must_not_be_needed_are_reported() {
    let package = |name, needed, kind| {
        let dependency = json!({ "name": needed, "kind": kind, "optional": needed == "axum" });
        json!({ "name": name, "publish": null, "dependencies": [dependency] })
    };
    for (name, needed, kind, is_allowed) in [
        ("tower-keep-core", "http", json!(null), false),
        ("tower-keep-core", "http", json!("dev"), true),
        ("tower-keep", "sqlx", json!(null), false),
        ("tower-keep", "axum", json!(null), true),
        ("tower-keep-redis", "tower-keep", json!(null), false),
        ("tower-keep-redis", "tower-keep", json!("dev"), true),
        ("tower-keep-redis", "redis", json!(null), true),
        ("tower-keep-new", "redis", json!(null), false),
    ] {
        let packages =
            [package(name, needed, kind.clone()), package("tower-keep", "http", json!(null))];
        let problems = packages::problems(&packages);
        assert_eq!(problems.is_empty(), is_allowed, "{name} {needed} {kind}");
    }
}
