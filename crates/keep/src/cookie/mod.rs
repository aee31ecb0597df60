//! The settings of the cookies: names, paths, domains and attributes.
//!
//! A layer sets up to four cookies: the session cookie, the remember cookie, a cookie for flash
//! messages, and the [device cookie](crate::throttle#known-devices). The value of each is
//! `base64url(body ‖ tag)` without padding, where `tag = HMAC-SHA256(key, body)[..16]`. Integers in
//! the body are big-endian. Times are seconds since 1970, in four bytes.

// The layouts of bodies, here in `flash.rs` and in the modules of a login's cookies, are written as
// `fmt: u8, kid: u8, flags: u8, issued: u32`: the fields in order, with their types. `fmt` is the
// version of the layout, and `kid` the fingerprint of the key. `uid`, at the end, is the user's id
// without a length. `LP(text)` is the length of the text in two bytes, then the text. `(…)×n`
// occurs n times.
//
// To read about …                                     open …
// the bytes of a login's cookies                      crate::login::stateless, server_side
// the bytes of the flash cookie                       flash.rs; what all bodies have: body.rs
// the bytes of the device cookie                      device.rs
// the bytes that say how the user logged in           login_origin.rs
// what every kind of cookie has                       contents.rs
// base64url and the MAC around them                   seal.rs; the key of the MAC: key_slot.rs
// finding a cookie in a request                       jar.rs
// which of several cookies of one name counts         choose.rs
// `Set-Cookie`, its attributes and their consistency  settings.rs

pub(crate) mod body;
pub(crate) mod choose;
pub(crate) mod contents;
pub(crate) mod device;
pub(crate) mod flash;
pub(crate) mod jar;
pub(crate) mod key_slot;
pub(crate) mod login_origin;
pub(crate) mod seal;
pub(crate) mod settings;

pub use settings::{CookieError, CookieSettings, SameSite};
