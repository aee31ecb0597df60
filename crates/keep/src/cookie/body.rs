//! Reading a body field by field.

/// The fields of a body that were not read yet. Every read returns `None` past the end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// Reads the bytes that every body begins with (format, key id, flags) and returns the flags.
    ///
    /// Returns `None` for another format, and for a flag that is not in `known_flags`. A newer
    /// version may restrict a login by a new flag, so this version must not accept the cookie as
    /// unrestricted.
    pub(crate) fn head(&mut self, format: u8, known_flags: u8) -> Option<u8> {
        let [found_format, _kid, flags] = self.array()?;
        (found_format == format && flags & !known_flags == 0).then_some(flags)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads a length of two bytes, then a text of that many bytes.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    /// Returns the rest of the body as text.
    pub(crate) fn rest(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }
}

/// Appends a length of two bytes, then the text.
pub(crate) fn write_text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text.as_bytes());
}
