//! Passwords' hashes as Werkzeug writes them, for an application that shares its users with Flask.
//!
//! `scrypt:N:R:P$SALT$HEX`, with 64 bytes, or `pbkdf2:sha256:ROUNDS$SALT$HEX`, with 32. It takes as long as it
//! should, so it belongs into `tokio::task::spawn_blocking`.

use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Whether this is the password of a hash; no, if the hash is none of Werkzeug's.
pub(crate) fn is_right(hash: &str, password: &str) -> bool {
    let mut parts = hash.splitn(3, '$');
    let (Some(method), Some(salt), Some(hex)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    hash_of(method, salt, password).is_some_and(|own| own.as_bytes().ct_eq(hex.as_bytes()).into())
}

/// A hash that Werkzeug checks; the salt is some 16 random letters or digits. `None` if there is no such method.
pub(crate) fn hash_with(method: &str, salt: &str, password: &str) -> Option<String> {
    Some(format!("{method}${salt}${}", hash_of(method, salt, password)?))
}

fn hash_of(method: &str, salt: &str, password: &str) -> Option<String> {
    let (password, salt) = (password.as_bytes(), salt.as_bytes());
    let parts: Vec<&str> = method.split(':').collect();
    let mut bytes = vec![0; if parts[0] == "scrypt" { 64 } else { 32 }];
    match parts.as_slice() {
        ["scrypt", n, r, p] => {
            let n: u64 = n.parse().ok().filter(|n: &u64| n.is_power_of_two())?;
            let (r, p) = (r.parse().ok()?, p.parse().ok()?);
            let params = scrypt::Params::new(n.ilog2().try_into().ok()?, r, p).ok()?;
            scrypt::scrypt(password, salt, &params, &mut bytes).ok()?;
        }
        ["pbkdf2", "sha256", rounds] => {
            pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds.parse().ok()?, &mut bytes);
        }
        _ => return None,
    }
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
