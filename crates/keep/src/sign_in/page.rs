//! The page with the form to log in, or to confirm a login.

use std::sync::Arc;

use crate::flash::Flash;
use crate::target::LocalTarget;

/// Builds the HTML of a page.
pub(super) type PageFn = Arc<dyn Fn(&SignInPage<'_>) -> String + Send + Sync>;

/// What a page with a form to log in, or to confirm a login, shows.
///
/// The form is sent with POST to the page's own address. Its fields are `login` (only to log in),
/// `password`, `remember` (a checkbox, only to log in), and `next` (hidden).
#[derive(Debug)]
#[non_exhaustive]
pub struct SignInPage<'a> {
    /// Whether a user who is logged in has to confirm it with the password.
    pub is_confirmation: bool,
    /// A sentence that says why the form was not accepted.
    pub error: Option<&'a str>,
    /// The flash message, such as "Please log in".
    pub flash: Option<&'a Flash>,
    /// The page to return to after the login.
    pub next: Option<&'a LocalTarget>,
    /// The login name that was typed, if the form was not accepted.
    pub login_name: &'a str,
}

impl SignInPage<'_> {
    /// Returns the form and the messages as HTML, for a page of your own. All values are escaped.
    pub fn form(&self) -> String {
        let mut html = String::new();
        if let Some(flash) = self.flash {
            html += &format!("<p role=\"status\">{}</p>\n", escaped(flash.text()));
        }
        if let Some(error) = self.error {
            html += &format!("<p role=\"alert\">{}</p>\n", escaped(error));
        }
        html += "<form method=\"post\">\n";
        if let Some(next) = self.next {
            let next = escaped(next.as_str());
            html += &format!("<input type=\"hidden\" name=\"next\" value=\"{next}\">\n");
        }
        if !self.is_confirmation {
            html += &format!(
                "<p><label>Login name<br><input name=\"login\" value=\"{}\" \
                 autocomplete=\"username\" autocapitalize=\"none\" required autofocus></label></p>\n",
                escaped(self.login_name),
            );
        }
        html += "<p><label>Password<br><input type=\"password\" name=\"password\" \
                 autocomplete=\"current-password\" required></label></p>\n";
        html += if self.is_confirmation {
            "<p><button>Confirm</button></p>\n"
        } else {
            "<p><label><input type=\"checkbox\" name=\"remember\"> Stay logged in</label></p>\n\
             <p><button>Log in</button></p>\n"
        };
        html + "</form>\n"
    }

    /// Returns the title of the page.
    pub fn title(&self) -> &'static str {
        if self.is_confirmation { "Confirm that it is you" } else { "Log in" }
    }

    pub(super) fn default_page(&self) -> String {
        let title = self.title();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <main>\n<h1>{title}</h1>\n{}</main>\n",
            self.form()
        )
    }
}

/// Escapes a text for HTML, also for an attribute in double quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_on_a_page_are_escaped() {
        let evil = "\"><script>alert(1)</script>&";
        let page = SignInPage {
            is_confirmation: false,
            error: Some(evil),
            flash: None,
            next: None,
            login_name: evil,
        };
        let html = page.default_page();
        assert!(!html.contains("<script>"), "{html}");
        assert_eq!(html.matches("&quot;&gt;&lt;script&gt;").count(), 2, "{html}");
    }
}
