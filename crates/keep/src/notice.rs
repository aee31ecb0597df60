//! What the sign-in page tells somebody who was sent there.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use crate::cookie::TEXT_LIMIT;

/// A message that is kept in a signed cookie until the page that shows it reads it, once.
///
/// A guard leaves one when it sends somebody to sign in or to confirm; a handler can leave its own
/// with [`Login::leave_notice`](crate::Login::leave_notice). It counts for ten minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    kind: NoticeKind,
    category: String,
    text: String,
}

/// Why there is a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoticeKind {
    /// The page asked for needs a login.
    LoginRequired,
    /// The page asked for needs a fresh login.
    ConfirmRequired,
    /// The application has left it.
    Application,
    /// A copy of a remember cookie was used, and the session has ended.
    Replayed,
}

impl NoticeKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::LoginRequired => 1,
            Self::ConfirmRequired => 2,
            Self::Application => 3,
            Self::Replayed => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::LoginRequired, Self::ConfirmRequired, Self::Application, Self::Replayed]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

impl Notice {
    pub(crate) fn new(kind: NoticeKind, category: String, text: String) -> Self {
        let fitting = |mut text: String| {
            text.truncate(cut(&text, TEXT_LIMIT).len());
            text
        };
        Self { kind, category: fitting(category), text: fitting(text) }
    }

    /// Why there is a notice.
    pub fn kind(&self) -> NoticeKind {
        self.kind
    }

    /// How to present it; a word for the page's style sheet, such as `message` or `warning`.
    pub fn category(&self) -> &str {
        &self.category
    }

    /// The text, at most 256 bytes. It is plain text: escape it for HTML.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// At most so many bytes, and no broken character at the end.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// What a guard says: a text, or one made for the request (its language, say).
///
/// ```
/// use tower_keep::Message;
///
/// let fixed = Message::from("Please log in first.");
/// let translated = Message::per_request(|request| {
///     match request.headers.get("accept-language").map(|value| value.as_bytes()) {
///         Some([b'd', b'e', ..]) => "Bitte melde dich an.".into(),
///         _ => "Please log in.".into(),
///     }
/// }).with_category("warning");
/// # let _ = (fixed, translated);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Message {
    text: Text,
    category: Cow<'static, str>,
}

#[derive(Clone)]
enum Text {
    Fixed(Cow<'static, str>),
    PerRequest(Arc<dyn Fn(&Parts) -> String + Send + Sync>),
}

impl Message {
    /// A text made for each request. What is longer than 256 bytes is cut.
    pub fn per_request(text: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        Self { text: Text::PerRequest(Arc::new(text)), category: Self::CATEGORY }
    }

    /// The category, `message` by default.
    pub fn with_category(mut self, category: impl Into<Cow<'static, str>>) -> Self {
        self.category = category.into();
        self
    }

    const CATEGORY: Cow<'static, str> = Cow::Borrowed("message");

    /// A fixed text or category that no cookie would hold.
    pub(crate) fn too_long(&self) -> Option<usize> {
        let text = match &self.text {
            Text::Fixed(text) => text.len(),
            Text::PerRequest(_) => 0,
        };
        Some(text.max(self.category.len())).filter(|length| *length > TEXT_LIMIT)
    }

    pub(crate) fn notice(&self, kind: NoticeKind, request: &Parts) -> Notice {
        let text = match &self.text {
            Text::Fixed(text) => text.clone().into_owned(),
            Text::PerRequest(text) => text(request),
        };
        Notice::new(kind, self.category.clone().into_owned(), text)
    }
}

impl From<&'static str> for Message {
    fn from(text: &'static str) -> Self {
        Self { text: Text::Fixed(text.into()), category: Self::CATEGORY }
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self { text: Text::Fixed(text.into()), category: Self::CATEGORY }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.text {
            Text::Fixed(text) => text,
            Text::PerRequest(_) => "(made per request)",
        };
        f.debug_struct("Message").field("text", &text).field("category", &self.category).finish()
    }
}
