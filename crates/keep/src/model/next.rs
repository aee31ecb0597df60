//! What a request does next, according to the real rules and what the store has returned so far.

use tower_keep_core::{Ended, RememberPeriod, Rotated, SessionKey, SessionRecord, Timestamp};

use super::{
    Kind, Next, REMEMBERED, Record, RememberCookie, Reply, Request, Response, START, SessionCookie,
    Set, SetCookies, World, policy,
};
use crate::cookie::{
    Opened, Origin, Proofs, ServerRemember, ServerSession, ServerTerms, SessionId,
};
use crate::keys::KeySlot;
use crate::rules::server_side::{
    Presented, RememberChange, Rules, SessionChange, Step, Stored, Verdict, confirming_rotates,
};
use crate::rules::{Facts, Who};

impl World {
    /// Feeds what the store has returned for a request to the rules, and returns what they need
    /// next.
    pub(super) fn next(&self, request: &Request) -> Next {
        if request.kind == Kind::LogIn {
            return self.log_in(request);
        }
        let policy = policy();
        let session = request.jar.session.map(held_session);
        let remember = request.jar.remember.map(|cookie| held_remember(cookie, &self.records));
        let seen = Presented {
            now: request.at,
            session: session.as_ref(),
            remember: remember.as_ref(),
            same_client: true,
            is_logout: request.kind == Kind::LogOut,
        };
        let mut rules = Rules::new(&policy, seen);
        let mut replies = request.replies.iter();
        let mut at = None;
        let mut step = rules.start();
        loop {
            step = match step {
                Step::Load(id, _) => {
                    at = Some(id.0[0]);
                    match replies.next() {
                        None => return Next::Load(id.0[0]),
                        Some(Reply::Loaded(record)) => rules.loaded(record.as_ref().map(stored)),
                        Some(other) => panic!("{other:?} is no answer to a load"),
                    }
                }
                Step::Verify => rules.verified(true),
                Step::Rotate => match replies.next() {
                    None => {
                        let from = rules.record().map_or(0, |record| record.generation);
                        return Next::Rotate(at.unwrap_or_default(), from);
                    }
                    Some(Reply::Rotated(won, record)) => {
                        let record = stored(record).record;
                        let won = if *won { Rotated::Won } else { Rotated::Lost };
                        rules.rotated(Some(won(record)))
                    }
                    Some(other) => panic!("{other:?} is no answer to a rotation"),
                },
                Step::End(reason) => match replies.next() {
                    None => return Next::End(at.unwrap_or_default(), reason),
                    Some(reply) => rules.ended(reason, *reply == Reply::Ended(true)),
                },
                Step::AskLoaders | Step::Done | Step::Busy => break,
            };
        }
        let (verdict, record) = rules.finish();
        let user = matches!(verdict.who, Who::User { .. });
        let mut response = Response {
            to: request.from,
            user,
            cookies: cookies(&verdict, request, at),
            until: request.at + policy.cookies_age(),
            written: None,
        };
        let resolved = at.map(|id| (id, verdict));
        match (request.kind, at, record) {
            (Kind::LogOut, ..) if !request.jar.ids().is_empty() && replies.next().is_none() => {
                return Next::EndAll(request.jar.ids());
            }
            (Kind::LogOut, ..) => {
                response.cookies = request.jar.cleared();
                response.until = u32::MAX;
            }
            (Kind::Confirm, Some(id), Some(record)) if user => {
                let remember = request.jar.remember.filter(|cookie| cookie.id == id);
                let shown = match resolved.as_ref().is_some_and(|(_, it)| it.is_restored) {
                    true => remember.map(|cookie| cookie.generation),
                    false => request.jar.session.map(|cookie| cookie.generation),
                };
                let mut found = SessionRecord::clone(&record);
                let confirmed = loop {
                    if !confirming_rotates(&found, shown) {
                        break Some(found.generation);
                    }
                    match replies.next() {
                        None => return Next::Rotate(id, found.generation),
                        Some(Reply::Rotated(true, record)) => break Some(record.generation),
                        Some(Reply::Rotated(false, record)) if record.ended.is_none() => {
                            found = SessionRecord::clone(&stored(record).record);
                        }
                        Some(_) => break None,
                    }
                };
                if let Some(generation) = confirmed {
                    response.cookies.session =
                        Set::To(SessionCookie { id, generation, fresh: true });
                    let in_time = request.at < self.records[usize::from(id)].remember_expires;
                    if remember.is_some() && in_time {
                        response.cookies.remember = Set::To(RememberCookie { id, generation });
                    }
                }
            }
            _ => {}
        }
        Next::Done(response, resolved)
    }

    fn log_in(&self, request: &Request) -> Next {
        match request.replies.first() {
            Some(Reply::Created(id)) => {
                let (id, generation) = (*id, 0);
                let cookies = SetCookies {
                    session: Set::To(SessionCookie { id, generation, fresh: true }),
                    remember: Set::To(RememberCookie { id, generation }),
                };
                let (to, until) = (request.from, u32::MAX);
                Next::Done(Response { to, user: true, cookies, until, written: None }, None)
            }
            _ => Next::Create(request.jar.ids()),
        }
    }
}

/// Returns the cookies that the verdict demands, for the session that was loaded last.
fn cookies(verdict: &Verdict, request: &Request, at: Option<u8>) -> SetCookies {
    let id = at.unwrap_or_default();
    let issued = |terms: ServerTerms, fresh: bool| {
        Set::To(SessionCookie { id, generation: terms.generation, fresh })
    };
    let was_fresh = request.jar.session.is_some_and(|session| session.fresh);
    let cleared = request.jar.cleared();
    let session = match verdict.session {
        SessionChange::Keep => Set::Keep,
        SessionChange::Clear => cleared.session,
        SessionChange::Issue { terms, keeps_proofs } => issued(terms, was_fresh && keeps_proofs),
        SessionChange::Restore(terms) => issued(terms, false),
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

fn held_session(cookie: SessionCookie) -> Opened<ServerSession> {
    let terms = ServerTerms {
        origin: Origin::PASSWORD,
        is_remembered: false,
        generation: cookie.generation,
        issued: START,
    };
    let proofs = if cookie.fresh { Proofs::password(START) } else { Proofs::default() };
    let id = id_of(cookie.id);
    let cookie = ServerSession { id, terms, proofs, stamp: 0, client: 0, user_hint: None };
    Opened { cookie, slot: KeySlot::CURRENT }
}

fn held_remember(cookie: RememberCookie, records: &[Record]) -> Opened<ServerRemember> {
    let cookie = ServerRemember {
        id: id_of(cookie.id),
        origin: Origin::PASSWORD,
        generation: cookie.generation,
        verifier: [0; 16],
        expires: records[usize::from(cookie.id)].remember_expires,
        stamp: 0,
    };
    Opened { cookie, slot: KeySlot::CURRENT }
}

fn stored(record: &Record) -> Stored {
    let (key, start) = (SessionKey::new([0; 32]), Timestamp::from_secs(START));
    let mut stored = SessionRecord::new(key, "1".into(), [0; 16], start, Timestamp::MAX);
    stored.generation = record.generation;
    stored.rotated_at = record.rotated_at.map(Timestamp::from_secs);
    stored.seen_at = record.seen_at.map(Timestamp::from_secs);
    let remember_expires = Timestamp::from_secs(record.remember_expires);
    stored.remember = Some(RememberPeriod::new(remember_expires, REMEMBERED));
    stored.ended = record.ended.map(|(at, reason)| Ended::new(Timestamp::from_secs(at), reason));
    let user = Facts { active: true, session_stamp_holds: true, remember_stamp_holds: true };
    Stored { record: stored.into(), user: Some(user) }
}
