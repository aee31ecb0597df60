//! The lifecycle of server-side sessions as a small model: one user, a browser, possibly a thief
//! who has copied the browser's cookies, and a network that is slow, loses responses and sends
//! requests twice.
//!
//! The real rules decide who is logged in (in `next`). The store, the browsers and the network are
//! a few lines here. The model is checked in two ways. [`exhaustive`] visits every state to a
//! stated depth, with all interleavings of the store's calls. [`replay`] runs random walks through
//! the real layer and a real store next to the model, and the results must be the same at every
//! step.
//!
//! The model assumes that a request reaches the server, and a response the browser, within half the
//! grace or never. Slower ones look like a replay, whatever a server does.

mod exhaustive;
mod next;
mod walks;

use tower_keep_core::EndReason;

use crate::client::SessionProtection;
use crate::rules::server_side::Verdict;
use crate::rules::{Policy, Who};

const GRACE: u32 = 4;
/// Within this time, a request or a response on its way arrives or is lost.
const TRANSIT: u32 = GRACE / 2;
const START: u32 = 1_000;
const REMEMBERED: u32 = 40;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Visit,
    Confirm,
    LogOut,
    LogIn,
}

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
    fresh: bool,
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
    /// Returns what clears this jar. It clears only cookies that were sent, or that exist according
    /// to the session.
    fn cleared(&self) -> SetCookies {
        let session = if self.session.is_some() { Set::Clear } else { Set::Keep };
        let remember = if self.ids().is_empty() { Set::Keep } else { Set::Clear };
        SetCookies { session, remember }
    }
}

/// What a response does to a cookie.
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

/// What a call of the store has returned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reply {
    Loaded(Option<Record>),
    Rotated(bool, Record),
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
    /// When it was sent; once the server handles it, when that began.
    at: u32,
    replies: Vec<Reply>,
}

/// A response: first it is created, then its head is written, then it is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Response {
    to: Holder,
    user: bool,
    cookies: SetCookies,
    /// After this time it is too late to write the cookies.
    until: u32,
    /// When its head was written.
    written: Option<u32>,
}

/// The next call of the store that a request needs, or its result.
enum Next {
    Load(u8),
    Rotate(u8, u32),
    End(u8, EndReason),
    /// Ends all sessions of the cookies, for a logout.
    EndAll(Vec<u8>),
    Create(Vec<u8>),
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
    /// Notes that a generation was seen, which wait for the upkeep: session, generation, time.
    marks: Vec<(u8, u32, u32)>,
    /// Whether notes wait for the upkeep; if not, the request writes them.
    lazy: bool,
    /// A replay was found.
    replayed: bool,
    /// A request of the browser was treated as not logged in although its session was live.
    forgotten: bool,
    /// A session that had ended before the request loaded it was treated as logged in.
    revived: bool,
    /// A request with a superseded generation got cookies after the next generation was seen.
    handed_out: bool,
    /// A compare-and-swap was lost.
    lost_race: bool,
}

fn policy() -> Policy {
    Policy {
        protection: SessionProtection::None,
        persistent: false,
        idle: None,
        renewal: None,
        absolute: None,
        refresh_remember: false,
        grace: GRACE,
        touch: u32::MAX,
        notes_first_use: false,
    }
}

impl World {
    /// Creates a state whose browser has just logged in and asked to be remembered.
    fn new(lazy: bool) -> Self {
        let mut world = Self {
            now: START,
            records: Vec::new(),
            browser: Jar::default(),
            thief: Jar::default(),
            requests: Vec::new(),
            responses: Vec::new(),
            marks: Vec::new(),
            lazy,
            replayed: false,
            forgotten: false,
            revived: false,
            handed_out: false,
            lost_race: false,
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
            Next::Rotate(id, from) => {
                let record = &mut self.records[usize::from(id)];
                let wins = record.generation == from && record.ended.is_none();
                if wins {
                    record.generation += 1;
                    (record.rotated_at, record.seen_at) = (Some(request.at), None);
                }
                self.lost_race |= !wins;
                request.replies.push(Reply::Rotated(wins, record.clone()));
            }
            Next::End(id, reason) => {
                self.replayed |= reason == EndReason::Replay;
                let lived = self.end(id, request.at, reason, None);
                request.replies.push(Reply::Ended(lived));
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
                    remember_expires: request.at + REMEMBERED,
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
        let lived = record.ended.is_none();
        if lived {
            record.ended = Some((at, reason));
            record.successor = successor;
        }
        lived
    }

    fn finish(&mut self, request: &Request, response: Response, resolved: Option<(u8, Verdict)>) {
        if let Some((id, verdict)) = resolved {
            self.judge(request, &response, id, &verdict);
            // The generation that was seen is the one that was loaded, even if a confirmation has
            // begun a newer one since.
            let loaded = request.replies.iter().rev().find_map(|reply| match reply {
                Reply::Loaded(record) => record.as_ref(),
                _ => None,
            });
            if let Some(loaded) = loaded.filter(|_| verdict.is_seen) {
                self.marks.push((id, loaded.generation, request.at));
                if !self.lazy {
                    self.flush();
                }
            }
        }
        self.responses.push(response);
    }

    /// Sets the flags for what must never happen.
    fn judge(&mut self, request: &Request, response: &Response, id: u8, verdict: &Verdict) {
        let Some(Reply::Loaded(loaded)) =
            request.replies.iter().rev().find(|reply| matches!(reply, Reply::Loaded(_)))
        else {
            return;
        };
        let lived = loaded.as_ref().is_some_and(|record| record.ended.is_none());
        let is_user = matches!(verdict.who, Who::User { .. });
        self.revived |= is_user && !lived;
        let in_time = |record: &Record| request.at < record.remember_expires;
        let could = request.jar.remember.is_some_and(|cookie| cookie.id == id)
            || request.jar.session.is_some();
        if request.from == Holder::Browser && !response.user && lived && could {
            let ended_meanwhile = self.records[usize::from(id)].ended.is_some();
            let is_in_time = loaded.as_ref().is_some_and(in_time);
            // If two confirmations have overtaken the request, the browser has newer cookies.
            let is_latest = request.jar == self.browser;
            self.forgotten |=
                is_in_time && !ended_meanwhile && is_latest && request.kind == Kind::Visit;
        }
        if let (Some(record), Some(cookie)) = (loaded, request.jar.remember) {
            let is_old = cookie.id == id && cookie.generation < record.generation;
            let sets = matches!(response.cookies.session, Set::To(_))
                || matches!(response.cookies.remember, Set::To(_));
            let by_session = request.jar.session.is_some();
            // A user who confirms has proved who they are.
            let proves = request.kind == Kind::Confirm;
            let was_seen = record.seen_at.is_some();
            self.handed_out |= is_old && was_seen && sets && !by_session && !proves;
        }
    }

    fn flush(&mut self) {
        for (id, generation, at) in std::mem::take(&mut self.marks) {
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
        if now > response.until {
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

    /// Checks whether this much time may pass: what is on its way arrives or is lost before it gets
    /// too old.
    fn may_pass(&self, time: u32) -> bool {
        let then = self.now + time;
        let fresh = |sent: u32| then - sent <= TRANSIT;
        self.requests.iter().all(|request| !request.replies.is_empty() || fresh(request.at))
            && self.responses.iter().all(|response| response.written.is_none_or(fresh))
            // The upkeep writes within a second, which is less than any step of time here.
            && self.marks.is_empty()
    }
}
