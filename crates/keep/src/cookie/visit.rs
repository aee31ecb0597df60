//! The visit cookie: what is kept for somebody on the way to the sign-in page.
//!
//! `fmt1 kid1 flags1 issued4 kind1 LP(category) LP(text) LP(next)`; category and text at most 256
//! bytes each, next at most 512. It counts for ten minutes.

use super::body::{Fields, put_text};
use super::{Contents, Ranked};
use crate::notice::{Notice, NoticeKind};
use crate::target::LocalTarget;

const FORMAT: u8 = 1;
/// A shortest body: the head, and three empty texts.
const FIXED: usize = 8 + 3 * 2;
const LIFETIME: u32 = 600;

/// The longest text of a notice, in bytes.
pub(crate) const TEXT_LIMIT: usize = 256;

/// A notice that the sign-in page shows once, and where to go afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Visit {
    pub(crate) issued: u32,
    pub(crate) notice: Option<Notice>,
    pub(crate) next: Option<LocalTarget>,
}

impl Visit {
    pub(crate) const LIFETIME: u32 = LIFETIME;

    /// The longest target that is kept, in bytes: all headers of a request have to fit into the
    /// buffers of a proxy, which have 8 kB with nginx.
    pub(crate) const LONGEST_NEXT: usize = 512;

    pub(crate) fn is_empty(&self) -> bool {
        self.notice.is_none() && self.next.is_none()
    }

    pub(crate) fn is_over(&self, now: u32) -> bool {
        now.saturating_sub(self.issued) >= LIFETIME
    }

    fn texts(&self) -> [&str; 3] {
        let notice = self.notice.as_ref();
        [
            notice.map_or("", Notice::category),
            notice.map_or("", Notice::text),
            self.next.as_ref().map_or("", LocalTarget::as_str),
        ]
    }
}

impl Contents for Visit {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        body.extend([FORMAT, kid, 0]);
        body.extend(self.issued.to_be_bytes());
        body.push(self.notice.as_ref().map_or(0, |notice| notice.kind().code()));
        self.texts().iter().for_each(|text| put_text(body, text));
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let [format, _kid, _flags] = fields.array()?;
        if format != FORMAT {
            return None;
        }
        let issued = fields.u32()?;
        let kind = NoticeKind::from_code(fields.u8()?);
        let (category, text) = (fields.text()?, fields.text()?);
        let next = fields.text()?;
        Some(Self {
            issued,
            notice: kind.map(|kind| Notice::new(kind, category.to_owned(), text.to_owned())),
            // Checked again: the rules for targets may have become stricter since it was made.
            next: next.parse().ok(),
        })
    }

    fn len(&self) -> usize {
        FIXED + self.texts().iter().map(|text| text.len()).sum::<usize>()
    }
}

impl Ranked for Visit {
    fn same_user(&self, _: &Self) -> bool {
        true
    }

    fn rank(&self) -> (u32, u32) {
        (self.issued, 0)
    }
}
