//! `next` and notices: what is kept for somebody on the way to the sign-in page and back.

use http::Method;
use tower_keep_core::AuthUser;

use super::handle::Login;
use super::state::{Change, State};
use crate::cookie::{Visit, choose};
use crate::page::Page;
use crate::target::target_of;
use crate::{Fault, LocalTarget, Notice, NoticeKind};

impl<U: AuthUser> Login<U> {
    /// Where to go after signing in, if this request says so and it is safe: from the query, or
    /// from the cookie of a layer that keeps it in the session, which is then used up.
    ///
    /// It can only be a path on this site, and not the login, logout or confirm page. Redirect with
    /// 303.
    pub fn next(&self) -> Option<LocalTarget> {
        self.next_given(None)
    }

    /// As [`next`](Self::next), where the form's own field comes first: pass what the form said, if
    /// it said anything.
    pub fn next_given(&self, field: Option<&str>) -> Option<LocalTarget> {
        let config = self.config();
        let in_query = || self.0.snapshot.request.query(&config.next_field);
        let given = field.filter(|next| !next.is_empty()).map(str::to_owned).or_else(in_query);
        let target = match given {
            Some(text) => text.parse().ok(),
            None => self.change_visit(|visit| visit.next.take()),
        };
        target.filter(|target| config.allows_next(target))
    }

    /// As [`next`](Self::next), or the layer's home page. A form's own field is not seen here; see
    /// [`next_given`](Self::next_given).
    pub fn next_or_home(&self) -> LocalTarget {
        self.next().unwrap_or_else(|| self.config().home.clone())
    }

    /// The login page's URL with this request's target as `next`, for a handler that turns somebody
    /// away by itself; `None` if the layer has no login page.
    ///
    /// A target that is too long for proxies (1,024 bytes, percent-encoded; in the session 512) is
    /// left out, and so is one in the session that is not the navigation of a browser's tab.
    pub fn login_url(&self) -> Option<String> {
        let is_page = self.0.snapshot.is_page;
        self.config().answers.login_page.as_ref().map(|page| self.url_of(page, is_page))
    }

    /// The confirm page's URL, as [`login_url`](Self::login_url).
    pub fn confirm_url(&self) -> Option<String> {
        let is_page = self.0.snapshot.is_page;
        self.config().answers.confirm_page.as_ref().map(|page| self.url_of(page, is_page))
    }

    /// What to tell the user, once: reading it uses it up.
    pub fn notice(&self) -> Option<Notice> {
        self.change_visit(|visit| visit.notice.take())
    }

    /// Leaves a notice for the next page that reads one; it replaces one not read yet.
    ///
    /// Text and category have at most 256 bytes each; what is longer is cut.
    ///
    /// # Errors
    ///
    /// The response's head is written.
    pub fn leave_notice(
        &self,
        category: impl Into<String>,
        text: impl Into<String>,
    ) -> Result<(), Fault> {
        if self.state().sealed {
            return Err(Fault::TOO_LATE);
        }
        self.leave(Notice::new(NoticeKind::Application, category.into(), text.into()));
        Ok(())
    }

    /// What was left for one user is not shown to the next; what this request has left stays.
    pub(super) fn drop_presented_notice(&self) {
        self.drop_presented_notice_if(|_| true);
    }

    pub(super) fn drop_presented_notice_if(&self, is_over: impl Fn(&Notice) -> bool) {
        self.change_visit(|visit| {
            let presented = self.0.visit.get().and_then(|presented| presented.notice.as_ref());
            let is_presented = presented.is_some() && visit.notice.as_ref() == presented;
            if is_presented && visit.notice.as_ref().is_some_and(is_over) {
                visit.notice = None;
            }
        });
    }

    pub(crate) fn leave(&self, notice: Notice) {
        self.change_visit(|visit| visit.notice = Some(notice));
    }

    /// The page's URL with this request's target, in the query or in the cookie; in the cookie only of
    /// a request for a page.
    pub(crate) fn url_of(&self, page: &Page, is_page: bool) -> String {
        let config = self.config();
        let leads_there =
            |target: &LocalTarget| page.local_path().is_some_and(|path| target.leads_to(path));
        let next = self.own_target().filter(|next| config.allows_next(next) && !leads_there(next));
        match next {
            Some(next) if config.next_in_session => {
                if is_page && next.as_str().len() <= Visit::LONGEST_NEXT {
                    self.change_visit(|visit| visit.next = Some(next));
                }
                page.url().to_owned()
            }
            Some(next) => page.url_with(&config.next_field, &next, config.public_origin.as_deref()),
            None => page.url().to_owned(),
        }
    }

    /// This request's own target, if one can come back to it: only to what a GET asked for.
    fn own_target(&self) -> Option<LocalTarget> {
        let request = &self.0.snapshot.request;
        let is_safe = request.method == Method::GET || request.method == Method::HEAD;
        if is_safe { target_of(request.target.as_ref()?) } else { None }
    }

    /// Changes what is kept for the visitor, and notes what is to be written if it did change.
    fn change_visit<T>(&self, change: impl FnOnce(&mut Visit) -> T) -> T {
        self.look();
        let mut state = self.state();
        let before = self.visit(&state);
        let mut visit = before.clone();
        let answer = change(&mut visit);
        if visit != before {
            visit.issued = self.config().now();
            state.visit = if visit.is_empty() { Change::Clear } else { Change::set(visit) };
        }
        answer
    }

    fn visit(&self, state: &State<U>) -> Visit {
        match &state.visit {
            Change::Set(visit) => Visit::clone(visit),
            Change::Clear => Visit::default(),
            Change::Keep => {
                self.0.visit.get_or_init(|| Box::new(self.presented_visit())).as_ref().clone()
            }
        }
    }

    fn presented_visit(&self) -> Visit {
        let config = self.config();
        let [found] = self.0.snapshot.cookies.find([config.visit.name()]);
        choose::<Visit>(&found, &config.keyring.visit)
            .map(|held| held.cookie)
            .filter(|visit| !visit.is_over(config.now()))
            .unwrap_or_default()
    }
}
