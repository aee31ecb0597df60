//! Password hashes as Werkzeug writes them, for an application that shares its users with Flask.
//!
//! The formats are `scrypt:N:R:P$SALT$HEX`, with 64 bytes, and `pbkdf2:sha256:ROUNDS$SALT$HEX`,
//! with 32. Hashing is slow on purpose, so call these functions in
//! `tokio::task::spawn_blocking`.

use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Checks whether a hash matches a password. Returns `false` if the hash is not one of Werkzeug's.
pub(crate) fn is_match(hash: &str, password: &str) -> bool {
    let mut parts = hash.splitn(3, '$');
    let (Some(method), Some(salt), Some(hex)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    hash_of(method, salt, password)
        .is_some_and(|computed| computed.as_bytes().ct_eq(hex.as_bytes()).into())
}

/// Returns a hash that Werkzeug can check, or `None` if the method is neither scrypt nor PBKDF2
/// with SHA-256. Use about 16 random letters or digits as the salt.
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
