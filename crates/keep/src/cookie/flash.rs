//! The flash cookie: a flash message, and the target to return to, for a user who is redirected to
//! the sign-in page.
//!
//! Layout: `fmt: u8, kid: u8, flags: u8, issued: u32, kind: u8, LP(category), LP(text), LP(next)`.
//! `LP(text)` is a length of two bytes, then the text. Category and text have at most 256 bytes
//! each, and `next` has at most 512. The cookie is valid for ten minutes.

use super::body::{Fields, write_text};
use super::choose::ByRecency;
use super::contents::Contents;
use crate::flash::{Flash, FlashKind};
use crate::target::LocalTarget;

const FORMAT: u8 = 1;
/// The length of the shortest body: the head, and three empty texts.
const MIN_BYTES: usize = 8 + 3 * 2;
const LIFETIME: u32 = 600;

/// The contents of a flash cookie: a flash message that a page shows once, and the target to go to
/// after a login.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FlashCookie {
    pub(crate) issued: u32,
    pub(crate) flash: Option<Flash>,
    pub(crate) next: Option<LocalTarget>,
}

impl FlashCookie {
    pub(crate) const LIFETIME: u32 = LIFETIME;

    /// The cookie keeps a target of at most this many bytes. All headers of a request have to fit
    /// into a proxy's buffers, which have 8 kB in nginx.
    pub(crate) const MAX_NEXT_BYTES: usize = 512;

    pub(crate) fn is_empty(&self) -> bool {
        self.flash.is_none() && self.next.is_none()
    }

    pub(crate) fn is_expired(&self, now: u32) -> bool {
        now.saturating_sub(self.issued) >= LIFETIME
    }

    fn texts(&self) -> [&str; 3] {
        let flash = self.flash.as_ref();
        [
            flash.map_or("", Flash::category),
            flash.map_or("", Flash::text),
            self.next.as_ref().map_or("", LocalTarget::as_str),
        ]
    }
}

impl Contents for FlashCookie {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        body.extend([FORMAT, kid, 0]);
        body.extend(self.issued.to_be_bytes());
        body.push(self.flash.as_ref().map_or(0, |flash| flash.kind().code()));
        self.texts().iter().for_each(|text| write_text(body, text));
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        fields.head(FORMAT, 0)?;
        let issued = fields.u32()?;
        let kind = FlashKind::from_code(fields.u8()?);
        let (category, text) = (fields.text()?, fields.text()?);
        let next = fields.text()?;
        Some(Self {
            issued,
            flash: kind.map(|kind| Flash::new(kind, category.to_owned(), text.to_owned())),
            // The target is checked again: the rules for targets may have become stricter since the
            // cookie was made.
            next: next.parse().ok(),
        })
    }

    fn encoded_len(&self) -> usize {
        MIN_BYTES + self.texts().iter().map(|text| text.len()).sum::<usize>()
    }
}

impl ByRecency for FlashCookie {
    fn is_same_user(&self, _: &Self) -> bool {
        true
    }

    fn recency(&self) -> (u32, u32) {
        (self.issued, 0)
    }
}
