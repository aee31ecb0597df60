//! Flash messages: short texts that the next page shows once, such as "Please log in".

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::request::Parts;

/// The category and the text of a flash message have at most this many bytes each.
pub(crate) const MAX_TEXT_BYTES: usize = 256;

/// A flash message: a text that the next page shows once. A signed cookie keeps the message until a
/// page takes it.
///
/// A guard sets a message when it redirects a user to sign in or to confirm. A handler can set its
/// own message with [`AuthSession::flash`](crate::AuthSession::flash). A message is valid for ten
/// minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    kind: FlashKind,
    category: String,
    text: String,
}

/// The reason for a flash message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlashKind {
    /// The requested page needs a login.
    LoginRequired,
    /// The requested page needs a fresh login.
    ConfirmRequired,
    /// The application has set the message.
    Application,
    /// A replay has ended one of the user's sessions: a request sent a remember cookie that had
    /// been replaced earlier, so there may be a copy of the cookie.
    Replayed,
}

impl FlashKind {
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

impl Flash {
    pub(crate) fn new(kind: FlashKind, category: String, text: String) -> Self {
        let truncated = |mut text: String| {
            text.truncate(cut(&text, MAX_TEXT_BYTES).len());
            text
        };
        Self { kind, category: truncated(category), text: truncated(text) }
    }

    /// Returns the reason for the message.
    pub fn kind(&self) -> FlashKind {
        self.kind
    }

    /// Whether the message asks the user to log in or to confirm.
    pub(crate) fn asks_for_login(&self) -> bool {
        matches!(self.kind, FlashKind::LoginRequired | FlashKind::ConfirmRequired)
    }

    /// Returns the category: a word for the page's style sheet, such as `message` or `warning`.
    pub fn category(&self) -> &str {
        &self.category
    }

    /// Returns the text, which has at most 256 bytes. It is plain text: escape it for HTML.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Flash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Returns at most `limit` bytes of the text, without a broken character at the end.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// The text of a guard's flash message: a fixed text, or a text made for each request, for example
/// in the language of the request.
///
/// ```
/// use tower_keep::flash::Message;
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
    /// Creates a message whose text is made for each request. Texts longer than 256 bytes are cut.
    pub fn per_request(text: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        Self { text: Text::PerRequest(Arc::new(text)), category: Self::CATEGORY }
    }

    /// Sets the category; `message` by default.
    pub fn with_category(mut self, category: impl Into<Cow<'static, str>>) -> Self {
        self.category = category.into();
        self
    }

    const CATEGORY: Cow<'static, str> = Cow::Borrowed("message");

    /// Returns the length of a fixed text or a category that is too long for the cookie.
    pub(crate) fn length_if_too_long(&self) -> Option<usize> {
        let text = match &self.text {
            Text::Fixed(text) => text.len(),
            Text::PerRequest(_) => 0,
        };
        Some(text.max(self.category.len())).filter(|length| *length > MAX_TEXT_BYTES)
    }

    pub(crate) fn flash(&self, kind: FlashKind, request: &Parts) -> Flash {
        let text = match &self.text {
            Text::Fixed(text) => text.clone().into_owned(),
            Text::PerRequest(text) => text(request),
        };
        Flash::new(kind, self.category.clone().into_owned(), text)
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
