//! The next call of the store that a request needs, or the request's result: decided by the real
//! rules from the replies of the store so far.

use tower_keep_core::{Ended, RememberPeriod, Rotated, SessionKey, SessionRecord, Timestamp};

use super::{
    Kind, Next, REMEMBER_SECONDS, Record, RememberCookie, Reply, Request, Response, START,
    SessionCookie, Set, SetCookies, World, policy,
};
use crate::cookie::contents::Opened;
use crate::cookie::key_slot::KeySlot;
use crate::cookie::login_origin::{LoginOrigin, Proofs};
use crate::login::server_side::cookies::{ServerRemember, ServerSession, ServerTerms, SessionId};
use crate::login::server_side::rules::{
    Presented, RememberChange, Rules, SessionChange, Step, StoredSession, Verdict,
    confirming_rotates,
};
use crate::login::shared_rules::{LoggedIn, UserFacts};

impl World {
    /// Passes the replies that the store has returned for this request to the rules. Returns the
    /// next call that the rules need, or the result.
    pub(super) fn next(&self, request: &Request) -> Next {
        if request.kind == Kind::LogIn {
            return self.log_in(request);
        }
        let policy = policy();
        let session = request.jar.session.map(held_session);
        let remember = request.jar.remember.map(|cookie| held_remember(cookie, &self.records));
        let presented = Presented {
            now: request.at,
            session: session.as_ref(),
            remember: remember.as_ref(),
            is_same_client: true,
            is_logout: request.kind == Kind::LogOut,
        };
        let mut rules = Rules::new(&policy, presented);
        let mut replies = request.replies.iter();
        let mut loaded_id = None;
        let mut step = rules.start();
        loop {
            step = match step {
                Step::Load { id, .. } => {
                    loaded_id = Some(id.0[0]);
                    match replies.next() {
                        None => return Next::Load(id.0[0]),
                        Some(Reply::Loaded(record)) => rules.loaded(record.as_ref().map(stored)),
                        Some(other) => panic!("{other:?} is not the reply to a load"),
                    }
                }
                Step::CheckVerifier => rules.verifier_checked(true),
                Step::Rotate => match replies.next() {
                    None => {
                        let id = loaded_id.unwrap_or_default();
                        let from_generation = rules.record().map_or(0, |record| record.generation);
                        return Next::Rotate { id, from_generation };
                    }
                    Some(Reply::Rotated { wins, record }) => {
                        let record = stored(record).record;
                        let result = if *wins { Rotated::Won } else { Rotated::Lost };
                        rules.rotated(Some(result(record)))
                    }
                    Some(other) => panic!("{other:?} is not the reply to a rotation"),
                },
                Step::End(reason) => match replies.next() {
                    None => return Next::End(loaded_id.unwrap_or_default(), reason),
                    Some(reply) => rules.ended(reason, *reply == Reply::Ended(true)),
                },
                Step::AskLoaders | Step::Done | Step::Busy => break,
            };
        }
        let (verdict, record) = rules.finish();
        let is_user = matches!(verdict.logged_in, LoggedIn::User { .. });
        let mut response = Response {
            to: request.from,
            is_user,
            cookies: cookies(&verdict, request, loaded_id),
            write_cookies_until: request.at + policy.max_cookie_age(),
            written: None,
        };
        let resolved = loaded_id.map(|id| (id, verdict));
        match (request.kind, loaded_id, record) {
            (Kind::LogOut, ..) if !request.jar.ids().is_empty() && replies.next().is_none() => {
                return Next::EndAll(request.jar.ids());
            }
            (Kind::LogOut, ..) => {
                response.cookies = request.jar.cleared();
                response.write_cookies_until = u32::MAX;
            }
            (Kind::Confirm, Some(id), Some(record)) if is_user => {
                let remember = request.jar.remember.filter(|cookie| cookie.id == id);
                let sent_generation =
                    match resolved.as_ref().is_some_and(|(_, verdict)| verdict.is_restored) {
                        true => remember.map(|cookie| cookie.generation),
                        false => request.jar.session.map(|cookie| cookie.generation),
                    };
                let mut latest = SessionRecord::clone(&record);
                let confirmed = loop {
                    if !confirming_rotates(&latest, sent_generation) {
                        break Some(latest.generation);
                    }
                    match replies.next() {
                        None => {
                            return Next::Rotate { id, from_generation: latest.generation };
                        }
                        Some(Reply::Rotated { wins: true, record }) => {
                            break Some(record.generation);
                        }
                        Some(Reply::Rotated { wins: false, record }) if record.ended.is_none() => {
                            latest = SessionRecord::clone(&stored(record).record);
                        }
                        Some(_) => break None,
                    }
                };
                if let Some(generation) = confirmed {
                    response.cookies.session =
                        Set::To(SessionCookie { id, generation, is_fresh: true });
                    let is_in_time = request.at < self.records[usize::from(id)].remember_expires;
                    if remember.is_some() && is_in_time {
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
                    session: Set::To(SessionCookie { id, generation, is_fresh: true }),
                    remember: Set::To(RememberCookie { id, generation }),
                };
                let (to, write_cookies_until) = (request.from, u32::MAX);
                let response =
                    Response { to, is_user: true, cookies, write_cookies_until, written: None };
                Next::Done(response, None)
            }
            _ => Next::Create(request.jar.ids()),
        }
    }
}

/// Returns the cookies that the verdict sets, for the session that was loaded last.
fn cookies(verdict: &Verdict, request: &Request, loaded_id: Option<u8>) -> SetCookies {
    let id = loaded_id.unwrap_or_default();
    let issued = |terms: ServerTerms, is_fresh: bool| {
        Set::To(SessionCookie { id, generation: terms.generation, is_fresh })
    };
    let was_fresh = request.jar.session.is_some_and(|session| session.is_fresh);
    let cleared = request.jar.cleared();
    let session = match verdict.session {
        SessionChange::Keep => Set::Keep,
        SessionChange::Clear => cleared.session,
        SessionChange::Reissue { terms, keeps_proofs } => issued(terms, was_fresh && keeps_proofs),
        SessionChange::Restore(terms) => issued(terms, false),
    };
    let remember = match verdict.remember {
        RememberChange::Keep => Set::Keep,
        RememberChange::Clear => cleared.remember,
        RememberChange::Reissue { generation, .. } => Set::To(RememberCookie { id, generation }),
    };
    SetCookies { session, remember }
}

fn id_of(id: u8) -> SessionId {
    SessionId([id; 16])
}

/// Converts the model's session cookie to the layer's session cookie.
fn held_session(cookie: SessionCookie) -> Opened<ServerSession> {
    let terms = ServerTerms {
        login_origin: LoginOrigin::PASSWORD,
        is_remembered: false,
        generation: cookie.generation,
        issued: START,
    };
    let proofs = if cookie.is_fresh { Proofs::password(START) } else { Proofs::default() };
    let id = id_of(cookie.id);
    let cookie = ServerSession { id, terms, proofs, stamp: 0, client: 0, user_hint: None };
    Opened { cookie, slot: KeySlot::CURRENT }
}

/// Converts the model's remember cookie to the layer's remember cookie.
fn held_remember(cookie: RememberCookie, records: &[Record]) -> Opened<ServerRemember> {
    let cookie = ServerRemember {
        id: id_of(cookie.id),
        login_origin: LoginOrigin::PASSWORD,
        generation: cookie.generation,
        verifier: [0; 16],
        expires: records[usize::from(cookie.id)].remember_expires,
        stamp: 0,
    };
    Opened { cookie, slot: KeySlot::CURRENT }
}

/// Converts the model's record to a record and a user as a store returns them.
fn stored(record: &Record) -> StoredSession {
    let (key, start) = (SessionKey::new([0; 32]), Timestamp::from_secs(START));
    let mut stored = SessionRecord::new(key, "1".into(), [0; 16], start, Timestamp::MAX);
    stored.generation = record.generation;
    stored.rotated_at = record.rotated_at.map(Timestamp::from_secs);
    stored.seen_at = record.seen_at.map(Timestamp::from_secs);
    let remember_expires = Timestamp::from_secs(record.remember_expires);
    stored.remember = Some(RememberPeriod::new(remember_expires, REMEMBER_SECONDS));
    stored.ended = record.ended.map(|(at, reason)| Ended::new(Timestamp::from_secs(at), reason));
    let user =
        UserFacts { is_active: true, session_stamp_matches: true, remember_stamp_matches: true };
    StoredSession { record: stored.into(), user: Some(user) }
}
