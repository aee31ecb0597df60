//! The lifecycle of server-side sessions as a small model: one user, a browser, possibly a thief
//! who has copied the browser's cookies, and a network that is slow, loses responses and sends
//! requests twice.
//!
//! The real rules decide which user is logged in; the module [`next`] calls these rules. The store,
//! the browsers and the network are a few lines here. The model is checked in two ways.
//! [`exhaustive`] visits every state to a stated depth, with all interleavings of the store's
//! calls. [`walks`] runs random walks through the real layer and a real store next to the model,
//! and the results must be the same at every step.
//!
//! The grace is the time for which the cookies of the previous generation stay valid after the new
//! ones were seen. The model assumes that a request reaches the server within half the grace or
//! never, and that a response reaches the browser within half the grace or never. A slower request
//! or response can look like a replay, and no server can tell the difference.

mod exhaustive;
mod next;
mod walks;

use tower_keep_core::EndReason;

use crate::client::SessionProtection;
use crate::login::policy::Policy;
use crate::login::server_side::rules::Verdict;
use crate::login::shared_rules::LoggedIn;

const GRACE: u32 = 4;
/// A request or a response arrives or is lost within this time.
const MAX_TRANSIT: u32 = GRACE / 2;
const START: u32 = 1_000;
const REMEMBER_SECONDS: u32 = 40;

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Visit,
    Confirm,
    LogOut,
    LogIn,
}

/// A client that holds cookies of the user's login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Browser,
    Thief,
}

/// The fields of a session record that influence a decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Record {
    generation: u32,
    rotated_at: Option<u32>,
    seen_at: Option<u32>,
    remember_expires: u32,
    ended: Option<(u32, EndReason)>,
    successor: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SessionCookie {
    id: u8,
    generation: u32,
    is_fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RememberCookie {
    id: u8,
    generation: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Jar {
    session: Option<SessionCookie>,
    remember: Option<RememberCookie>,
}

impl Jar {
    fn ids(&self) -> Vec<u8> {
        let mut ids: Vec<_> = self.session.iter().map(|cookie| cookie.id).collect();
        let other = self.remember.map(|cookie| cookie.id);
        ids.extend(other.filter(|id| !ids.contains(id)));
        ids
    }
}

impl Jar {
    /// Returns the changes that clear the cookies of a request with this jar. A session cookie says
    /// that the login has a remember cookie, so the remember cookie is cleared even if the request
    /// sent only the session cookie.
    fn cleared(&self) -> SetCookies {
        let session = if self.session.is_some() { Set::Clear } else { Set::Keep };
        let remember = if self.ids().is_empty() { Set::Keep } else { Set::Clear };
        SetCookies { session, remember }
    }
}

/// The change that a response makes to a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Set<T> {
    #[default]
    Keep,
    Clear,
    To(T),
}

impl<T: Copy> Set<T> {
    fn apply(self, cookie: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *cookie = None,
            Self::To(value) => *cookie = Some(value),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct SetCookies {
    session: Set<SessionCookie>,
    remember: Set<RememberCookie>,
}

/// The result of a call of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reply {
    Loaded(Option<Record>),
    /// Whether this call won the compare-and-swap, and the record after the call.
    Rotated {
        wins: bool,
        record: Record,
    },
    /// Whether the session was live before this call.
    Ended(bool),
    Created(u8),
}

/// A request at the server, or on its way there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    from: Holder,
    kind: Kind,
    jar: Jar,
    /// When the request was sent or, after the server has begun to handle it, when the server
    /// began.
    at: u32,
    replies: Vec<Reply>,
}

/// A response that was created. When its head is written, the response is on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Response {
    to: Holder,
    is_user: bool,
    cookies: SetCookies,
    /// After this time, the head is written without the cookies.
    write_cookies_until: u32,
    /// When the head was written.
    written: Option<u32>,
}

/// The next call of the store that a request needs, or the result of the request.
enum Next {
    Load(u8),
    Rotate {
        id: u8,
        from_generation: u32,
    },
    End(u8, EndReason),
    /// Ends all sessions of the cookies, for a logout.
    EndAll(Vec<u8>),
    /// Creates a session that replaces these sessions.
    Create(Vec<u8>),
    /// The response and, if a session was loaded, the last such session and the rules' verdict.
    Done(Response, Option<(u8, Verdict)>),
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u32,
    records: Vec<Record>,
    browser: Jar,
    thief: Jar,
    requests: Vec<Request>,
    responses: Vec<Response>,
    /// Seen marks that wait for the upkeep: session, generation, time.
    seen_marks: Vec<(u8, u32, u32)>,
    /// Whether seen marks wait for the upkeep. If not, the request writes them.
    has_upkeep: bool,
    /// A replay was found.
    has_found_replay: bool,
    /// A request of the browser was treated as not logged in although its session was live.
    has_lost_login: bool,
    /// A session that had ended before the request loaded it was treated as logged in.
    has_revived_session: bool,
    /// A request with cookies of an earlier generation got new cookies, although cookies of the
    /// current generation had been seen.
    has_renewed_old_cookies: bool,
    /// A compare-and-swap was lost.
    has_lost_race: bool,
}

fn policy() -> Policy {
    Policy {
        protection: SessionProtection::None,
        is_persistent: false,
        idle_limit: None,
        renewal_age: None,
        absolute_limit: None,
        refreshes_remember: false,
        grace: GRACE,
        touch_interval: u32::MAX,
        marks_first_use: false,
    }
}

impl World {
    /// Creates a state in which the browser has just logged in and asked to be remembered.
    fn new(has_upkeep: bool) -> Self {
        let mut world = Self {
            now: START,
            records: Vec::new(),
            browser: Jar::default(),
            thief: Jar::default(),
            requests: Vec::new(),
            responses: Vec::new(),
            seen_marks: Vec::new(),
            has_upkeep,
            has_found_replay: false,
            has_lost_login: false,
            has_revived_session: false,
            has_renewed_old_cookies: false,
            has_lost_race: false,
        };
        world.send(Holder::Browser, Kind::LogIn);
        while !world.requests.is_empty() {
            world.serve(0);
        }
        world.write(0);
        world.deliver(0);
        world
    }

    fn jar(&mut self, holder: Holder) -> &mut Jar {
        match holder {
            Holder::Browser => &mut self.browser,
            Holder::Thief => &mut self.thief,
        }
    }

    fn send(&mut self, from: Holder, kind: Kind) {
        let (jar, at) = (*self.jar(from), self.now);
        self.requests.push(Request { from, kind, jar, at, replies: Vec::new() });
    }

    /// Makes one call of the store, for one of the requests.
    fn serve(&mut self, index: usize) {
        let mut request = self.requests.remove(index);
        if request.replies.is_empty() {
            request.at = self.now;
        }
        match self.next(&request) {
            Next::Load(id) => {
                request.replies.push(Reply::Loaded(self.records.get(usize::from(id)).cloned()));
            }
            Next::Rotate { id, from_generation } => {
                let record = &mut self.records[usize::from(id)];
                let wins = record.generation == from_generation && record.ended.is_none();
                if wins {
                    record.generation += 1;
                    (record.rotated_at, record.seen_at) = (Some(request.at), None);
                }
                self.has_lost_race |= !wins;
                request.replies.push(Reply::Rotated { wins, record: record.clone() });
            }
            Next::End(id, reason) => {
                self.has_found_replay |= reason == EndReason::Replay;
                let was_live = self.end(id, request.at, reason, None);
                request.replies.push(Reply::Ended(was_live));
            }
            Next::EndAll(ids) => {
                for id in ids {
                    self.end(id, request.at, EndReason::LoggedOut, None);
                }
                request.replies.push(Reply::Ended(true));
            }
            Next::Create(replacing) => {
                let new = self.records.len() as u8;
                self.records.push(Record {
                    generation: 0,
                    rotated_at: None,
                    seen_at: None,
                    remember_expires: request.at + REMEMBER_SECONDS,
                    ended: None,
                    successor: None,
                });
                for id in replacing {
                    let mut last = id;
                    while let Some(successor) = self.records[usize::from(last)].successor {
                        last = successor;
                    }
                    self.end(last, request.at, EndReason::Replaced, Some(new));
                }
                request.replies.push(Reply::Created(new));
            }
            Next::Done(..) => {}
        }
        match self.next(&request) {
            Next::Done(response, resolved) => self.finish(&request, response, resolved),
            _ => self.requests.insert(index, request),
        }
    }

    /// Ends a session. Returns whether it was live before this call.
    fn end(&mut self, id: u8, at: u32, reason: EndReason, successor: Option<u8>) -> bool {
        let record = &mut self.records[usize::from(id)];
        let was_live = record.ended.is_none();
        if was_live {
            record.ended = Some((at, reason));
            record.successor = successor;
        }
        was_live
    }

    fn finish(&mut self, request: &Request, response: Response, resolved: Option<(u8, Verdict)>) {
        if let Some((id, verdict)) = resolved {
            self.judge(request, &response, id, &verdict);
            // The seen mark is for the generation that was loaded, even if a confirmation has begun
            // the next generation since.
            let loaded = request.replies.iter().rev().find_map(|reply| match reply {
                Reply::Loaded(record) => record.as_ref(),
                _ => None,
            });
            if let Some(loaded) = loaded.filter(|_| verdict.marks_seen) {
                self.seen_marks.push((id, loaded.generation, request.at));
                if !self.has_upkeep {
                    self.flush();
                }
            }
        }
        self.responses.push(response);
    }

    /// Sets the flags for results that must never occur.
    fn judge(&mut self, request: &Request, response: &Response, id: u8, verdict: &Verdict) {
        let Some(Reply::Loaded(loaded)) =
            request.replies.iter().rev().find(|reply| matches!(reply, Reply::Loaded(_)))
        else {
            return;
        };
        let was_live = loaded.as_ref().is_some_and(|record| record.ended.is_none());
        let is_user = matches!(verdict.logged_in, LoggedIn::User { .. });
        self.has_revived_session |= is_user && !was_live;
        let in_time = |record: &Record| request.at < record.remember_expires;
        let has_cookie = request.jar.remember.is_some_and(|cookie| cookie.id == id)
            || request.jar.session.is_some();
        if request.from == Holder::Browser && !response.is_user && was_live && has_cookie {
            let has_ended_meanwhile = self.records[usize::from(id)].ended.is_some();
            let is_in_time = loaded.as_ref().is_some_and(in_time);
            // If two confirmations have overtaken the request, the browser has newer cookies.
            let has_latest_cookies = request.jar == self.browser;
            self.has_lost_login |= is_in_time
                && !has_ended_meanwhile
                && has_latest_cookies
                && request.kind == Kind::Visit;
        }
        if let (Some(record), Some(cookie)) = (loaded, request.jar.remember) {
            let is_old = cookie.id == id && cookie.generation < record.generation;
            let sets_cookies = matches!(response.cookies.session, Set::To(_))
                || matches!(response.cookies.remember, Set::To(_));
            let has_session_cookie = request.jar.session.is_some();
            // A user who confirms the login has given the password, so new cookies are right.
            let is_confirm = request.kind == Kind::Confirm;
            let was_seen = record.seen_at.is_some();
            self.has_renewed_old_cookies |=
                is_old && was_seen && sets_cookies && !has_session_cookie && !is_confirm;
        }
    }

    /// Writes the seen marks.
    fn flush(&mut self) {
        for (id, generation, at) in std::mem::take(&mut self.seen_marks) {
            let record = &mut self.records[usize::from(id)];
            if record.generation == generation && record.ended.is_none() {
                record.seen_at.get_or_insert(at);
            }
        }
    }

    /// Writes the head of a response.
    fn write(&mut self, index: usize) {
        let now = self.now;
        let response = &mut self.responses[index];
        if now > response.write_cookies_until {
            response.cookies = SetCookies::default();
        }
        response.written = Some(now);
    }

    fn deliver(&mut self, index: usize) {
        let response = self.responses.remove(index);
        let jar = self.jar(response.to);
        response.cookies.session.apply(&mut jar.session);
        response.cookies.remember.apply(&mut jar.remember);
    }

    /// Checks whether this much time may pass, so that no request and no response on its way
    /// becomes older than [`MAX_TRANSIT`].
    fn may_wait(&self, time: u32) -> bool {
        let later = self.now + time;
        let is_in_time = |sent: u32| later - sent <= MAX_TRANSIT;
        self.requests.iter().all(|request| !request.replies.is_empty() || is_in_time(request.at))
            && self.responses.iter().all(|response| response.written.is_none_or(is_in_time))
            // The upkeep writes within a second, which is less than any wait in the model.
            && self.seen_marks.is_empty()
    }
}
