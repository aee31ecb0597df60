//! The lifecycle of sessions with records, as a small model: one user, a browser, perhaps a thief who
//! has copied its cookies, and a network that is slow, loses answers and sends requests twice.
//!
//! Who is logged in is decided by the real rules; the store, the browsers and the network are a few
//! lines here. The model is checked two ways: [`exhaustive`] visits every state to a stated depth, with
//! all interleavings of the store's calls; [`replay`] runs random walks through the real layer and a
//! real store beside the model, and both must say the same at every step.
//!
//! What is assumed of the network: a request reaches the server, and an answer the browser, within
//! half the grace, or never. Slower ones look like a replay, whatever a server does.

mod exhaustive;
mod replay;

use tower_keep_core::{EndReason, Ended, Rotated, SessionKey, SessionRecord, Timestamp};

use crate::SessionProtection;
use crate::cookie::{Held, SessionId, TrackedRemember, TrackedSession, TrackedTerms};
use crate::keys::KeySlot;
use crate::rules::tracked::{RememberChange, Rules, Seen, SessionChange, Step, Stored, Verdict};
use crate::rules::{Facts, Policy, Who};

const GRACE: u32 = 4;
/// Within this time what is on its way arrives, or is lost.
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

/// A record, as far as it decides anything.
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
    /// What clears it: only cookies that were sent, or that the session says are there.
    fn cleared(&self) -> SetCookies {
        let session = if self.session.is_some() { Set::Clear } else { Set::Keep };
        let remember = if self.ids().is_empty() { Set::Keep } else { Set::Clear };
        SetCookies { session, remember }
    }
}

/// What an answer does to a cookie.
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

/// What the store has answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Told {
    Loaded(Option<Record>),
    Rotated(bool, Record),
    /// Whether it lived until then.
    Ended(bool),
    Created(u8),
}

/// A request at the server, or on its way there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    from: Holder,
    kind: Kind,
    jar: Jar,
    /// When it was sent, then when it began.
    at: u32,
    told: Vec<Told>,
}

/// An answer that is made, and then written, and then on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answer {
    to: Holder,
    user: bool,
    cookies: SetCookies,
    /// When it is too late to write the cookies.
    until: u32,
    /// When it was written.
    written: Option<u32>,
}

/// What a request needs of the store next, or what has come of it.
enum Next {
    Load(u8),
    Rotate(u8, u32),
    End(u8, EndReason),
    /// Of a logout.
    EndAll(Vec<u8>),
    Create(Vec<u8>),
    Done(Answer, Option<(u8, Verdict)>),
}

/// All there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u32,
    records: Vec<Record>,
    browser: Jar,
    thief: Jar,
    requests: Vec<Request>,
    answers: Vec<Answer>,
    /// Notes of a generation's being seen that wait for the upkeep: session, generation, when.
    marks: Vec<(u8, u32, u32)>,
    /// Whether notes wait, or are written by the request.
    lazy: bool,
    /// A replay was found.
    replayed: bool,
    /// A request of the browser was taken for nobody's although its session lived.
    forgotten: bool,
    /// A session that had ended before a request asked was taken for somebody's.
    revived: bool,
    /// A superseded generation was answered with cookies after its successor was seen.
    handed_out: bool,
    /// A compare-and-swap was lost.
    lost_race: bool,
}

fn policy() -> Policy {
    Policy {
        protection: SessionProtection::None,
        persistent: false,
        idle: None,
        absolute: None,
        refresh_remember: false,
        grace: GRACE,
        touch: u32::MAX,
    }
}

impl World {
    /// A browser that has just logged in, and asked to be remembered.
    fn new(lazy: bool) -> Self {
        let mut world = Self {
            now: START,
            records: Vec::new(),
            browser: Jar::default(),
            thief: Jar::default(),
            requests: Vec::new(),
            answers: Vec::new(),
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
        self.requests.push(Request { from, kind, jar, at, told: Vec::new() });
    }

    /// One call of the store, for one of the requests.
    fn serve(&mut self, index: usize) {
        let mut request = self.requests.remove(index);
        if request.told.is_empty() {
            request.at = self.now;
        }
        match self.next(&request) {
            Next::Load(id) => {
                request.told.push(Told::Loaded(self.records.get(usize::from(id)).cloned()));
            }
            Next::Rotate(id, from) => {
                let record = &mut self.records[usize::from(id)];
                let wins = record.generation == from && record.ended.is_none();
                if wins {
                    record.generation += 1;
                    (record.rotated_at, record.seen_at) = (Some(request.at), None);
                }
                self.lost_race |= !wins;
                request.told.push(Told::Rotated(wins, record.clone()));
            }
            Next::End(id, reason) => {
                self.replayed |= reason == EndReason::Replay;
                let lived = self.end(id, request.at, reason, None);
                request.told.push(Told::Ended(lived));
            }
            Next::EndAll(ids) => {
                for id in ids {
                    self.end(id, request.at, EndReason::LoggedOut, None);
                }
                request.told.push(Told::Ended(true));
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
                request.told.push(Told::Created(new));
            }
            Next::Done(..) => {}
        }
        match self.next(&request) {
            Next::Done(answer, resolved) => self.finish(&request, answer, resolved),
            _ => self.requests.insert(index, request),
        }
    }

    /// Whether it lived until now.
    fn end(&mut self, id: u8, at: u32, reason: EndReason, successor: Option<u8>) -> bool {
        let record = &mut self.records[usize::from(id)];
        let lived = record.ended.is_none();
        if lived {
            record.ended = Some((at, reason));
            record.successor = successor;
        }
        lived
    }

    fn finish(&mut self, request: &Request, answer: Answer, resolved: Option<(u8, Verdict)>) {
        if let Some((id, verdict)) = resolved {
            self.judge(request, &answer, id, &verdict);
            // What was seen is what was loaded, whatever a confirmation has begun since.
            let loaded = request.told.iter().rev().find_map(|told| match told {
                Told::Loaded(record) => record.as_ref(),
                _ => None,
            });
            if let Some(loaded) = loaded.filter(|_| verdict.is_seen) {
                self.marks.push((id, loaded.generation, request.at));
                if !self.lazy {
                    self.flush();
                }
            }
        }
        self.answers.push(answer);
    }

    /// Notes what must never happen.
    fn judge(&mut self, request: &Request, answer: &Answer, id: u8, verdict: &Verdict) {
        let Some(Told::Loaded(loaded)) =
            request.told.iter().rev().find(|told| matches!(told, Told::Loaded(_)))
        else {
            return;
        };
        let lived = loaded.as_ref().is_some_and(|record| record.ended.is_none());
        let is_user = matches!(verdict.who, Who::User { .. });
        self.revived |= is_user && !lived;
        let in_time = |record: &Record| request.at < record.remember_expires;
        let could = request.jar.remember.is_some_and(|cookie| cookie.id == id)
            || request.jar.session.is_some();
        if request.from == Holder::Browser && !answer.user && lived && could {
            let ended_meanwhile = self.records[usize::from(id)].ended.is_some();
            let is_in_time = loaded.as_ref().is_some_and(in_time);
            // Of requests that two confirmations have overtaken, the browser has newer cookies.
            let is_latest = request.jar == self.browser;
            self.forgotten |=
                is_in_time && !ended_meanwhile && is_latest && request.kind == Kind::Visit;
        }
        if let (Some(record), Some(cookie)) = (loaded, request.jar.remember) {
            let is_old = cookie.id == id && cookie.generation < record.generation;
            let sets = matches!(answer.cookies.session, Set::To(_))
                || matches!(answer.cookies.remember, Set::To(_));
            let by_session = request.jar.session.is_some();
            // Who confirms has proved who they are.
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

    /// The head of an answer is written.
    fn write(&mut self, index: usize) {
        let now = self.now;
        let answer = &mut self.answers[index];
        if now > answer.until {
            answer.cookies = SetCookies::default();
        }
        answer.written = Some(now);
    }

    fn deliver(&mut self, index: usize) {
        let answer = self.answers.remove(index);
        let jar = self.jar(answer.to);
        answer.cookies.session.apply(&mut jar.session);
        answer.cookies.remember.apply(&mut jar.remember);
    }

    /// What is on its way arrives or is lost before it gets too old.
    fn may_pass(&self, time: u32) -> bool {
        let then = self.now + time;
        let fresh = |sent: u32| then - sent <= TRANSIT;
        self.requests.iter().all(|request| !request.told.is_empty() || fresh(request.at))
            && self.answers.iter().all(|answer| answer.written.is_none_or(fresh))
            // The upkeep writes within a second, which is less than any step of time here.
            && self.marks.is_empty()
    }

    /// Feeds a request's answers of the store to the rules, and sees what they want next.
    fn next(&self, request: &Request) -> Next {
        if request.kind == Kind::LogIn {
            return self.log_in(request);
        }
        let policy = policy();
        let session = request.jar.session.map(held_session);
        let remember = request.jar.remember.map(|cookie| held_remember(cookie, &self.records));
        let seen = Seen {
            now: request.at,
            session: session.as_ref(),
            remember: remember.as_ref(),
            same_client: true,
            is_leaving: request.kind == Kind::LogOut,
        };
        let mut rules = Rules::new(&policy, seen);
        let mut told = request.told.iter();
        let mut at = None;
        let mut step = rules.start();
        loop {
            step = match step {
                Step::Load(id, _) => {
                    at = Some(id.0[0]);
                    match told.next() {
                        None => return Next::Load(id.0[0]),
                        Some(Told::Loaded(record)) => rules.loaded(record.as_ref().map(stored)),
                        Some(other) => panic!("{other:?} is no answer to a load"),
                    }
                }
                Step::Verify => rules.verified(true),
                Step::Rotate => match told.next() {
                    None => {
                        let from = rules.record().map_or(0, |record| record.generation);
                        return Next::Rotate(at.unwrap_or_default(), from);
                    }
                    Some(Told::Rotated(won, record)) => {
                        let record = stored(record).record;
                        let won = if *won { Rotated::Won } else { Rotated::Lost };
                        rules.rotated(Some(won(record)))
                    }
                    Some(other) => panic!("{other:?} is no answer to a rotation"),
                },
                Step::End(reason) => match told.next() {
                    None => return Next::End(at.unwrap_or_default(), reason),
                    Some(told) => rules.ended(reason, *told == Told::Ended(true)),
                },
                Step::AskLoaders | Step::Done | Step::Busy => break,
            };
        }
        let (verdict, record) = rules.finish();
        let user = matches!(verdict.who, Who::User { .. });
        let mut answer = Answer {
            to: request.from,
            user,
            cookies: cookies(&verdict, request, at),
            until: request.at + policy.cookies_age(),
            written: None,
        };
        let resolved = at.map(|id| (id, verdict));
        match (request.kind, at, record) {
            (Kind::LogOut, ..) if !request.jar.ids().is_empty() && told.next().is_none() => {
                return Next::EndAll(request.jar.ids());
            }
            (Kind::LogOut, ..) => {
                answer.cookies = request.jar.cleared();
                answer.until = u32::MAX;
            }
            (Kind::Confirm, Some(id), Some(record)) if user => {
                let remember = request.jar.remember.filter(|cookie| cookie.id == id);
                let shown = match resolved.as_ref().is_some_and(|(_, it)| it.is_restored) {
                    true => remember.map(|cookie| cookie.generation),
                    false => request.jar.session.map(|cookie| cookie.generation),
                };
                let mut found = Record {
                    generation: record.generation,
                    seen_at: record.seen_at.map(|at| at.as_secs()),
                    ..self.records[usize::from(id)].clone()
                };
                let confirmed = loop {
                    if Some(found.generation) != shown && found.seen_at.is_none() {
                        break Some(found.generation);
                    }
                    match told.next() {
                        None => return Next::Rotate(id, found.generation),
                        Some(Told::Rotated(true, record)) => break Some(record.generation),
                        Some(Told::Rotated(false, record)) if record.ended.is_none() => {
                            found = record.clone();
                        }
                        Some(_) => break None,
                    }
                };
                if let Some(generation) = confirmed {
                    answer.cookies.session = Set::To(SessionCookie { id, generation, fresh: true });
                    let in_time = request.at < self.records[usize::from(id)].remember_expires;
                    if remember.is_some() && in_time {
                        answer.cookies.remember = Set::To(RememberCookie { id, generation });
                    }
                }
            }
            _ => {}
        }
        Next::Done(answer, resolved)
    }

    fn log_in(&self, request: &Request) -> Next {
        match request.told.first() {
            Some(Told::Created(id)) => {
                let (id, generation) = (*id, 0);
                let cookies = SetCookies {
                    session: Set::To(SessionCookie { id, generation, fresh: true }),
                    remember: Set::To(RememberCookie { id, generation }),
                };
                let (to, until) = (request.from, u32::MAX);
                Next::Done(Answer { to, user: true, cookies, until, written: None }, None)
            }
            _ => Next::Create(request.jar.ids()),
        }
    }
}

/// The cookies that the verdict wants, for the session that was looked at last.
fn cookies(verdict: &Verdict, request: &Request, at: Option<u8>) -> SetCookies {
    let id = at.unwrap_or_default();
    let issued = |terms: TrackedTerms| {
        Set::To(SessionCookie { id, generation: terms.generation, fresh: terms.fresh > 0 })
    };
    let cleared = request.jar.cleared();
    let session = match verdict.session {
        SessionChange::Keep => Set::Keep,
        SessionChange::Clear => cleared.session,
        SessionChange::Issue(terms) | SessionChange::Restore(terms) => issued(terms),
    };
    let remember = match verdict.remember {
        RememberChange::Keep => Set::Keep,
        RememberChange::Clear => cleared.remember,
        RememberChange::Issue { generation, .. } => Set::To(RememberCookie { id, generation }),
    };
    SetCookies { session, remember }
}

fn id_of(id: u8) -> SessionId {
    SessionId([id; 16])
}

fn held_session(cookie: SessionCookie) -> Held<TrackedSession> {
    let fresh = u32::from(cookie.fresh);
    let terms = TrackedTerms { flags: 0, generation: cookie.generation, issued: START, fresh };
    let id = id_of(cookie.id);
    let cookie = TrackedSession { id, terms, stamp: 0, client: 0, likely: "".into() };
    Held { cookie, slot: KeySlot::CURRENT }
}

fn held_remember(cookie: RememberCookie, records: &[Record]) -> Held<TrackedRemember> {
    let cookie = TrackedRemember {
        id: id_of(cookie.id),
        flags: 0,
        generation: cookie.generation,
        verifier: [0; 16],
        expires: records[usize::from(cookie.id)].remember_expires,
        stamp: 0,
    };
    Held { cookie, slot: KeySlot::CURRENT }
}

fn stored(record: &Record) -> Stored {
    let ended = record.ended.map(|(at, reason)| Ended {
        at: Timestamp::from_secs(at),
        reason,
        successor: None,
        told: false,
    });
    let start = Timestamp::from_secs(START);
    let record = SessionRecord {
        key: SessionKey::new([0; 32]),
        user: "1".into(),
        generation: record.generation,
        rotated_at: record.rotated_at.map(Timestamp::from_secs),
        seen_at: record.seen_at.map(Timestamp::from_secs),
        salt: [0; 16],
        created: start,
        session_started: start,
        last_seen: start,
        remember_expires: Some(Timestamp::from_secs(record.remember_expires)),
        remember_seconds: REMEMBERED,
        expires: Timestamp::MAX,
        address: None,
        user_agent: "".into(),
        method: "".into(),
        ended,
    };
    let user = Facts { active: true, session_stamp_holds: true, remember_stamp_holds: true };
    Stored { record: record.into(), user: Some(user) }
}
