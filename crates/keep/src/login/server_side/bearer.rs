//! Bearer tokens: logins with a server-side session, for clients without a cookie jar. The token
//! carries the session in place of the cookies.
//!
//! A token is never replaced, because two processes may share it, and a replaced token would look
//! like a replay. So it has an absolute expiry, and the login is fresh only until ten minutes after
//! the user has proved who they are.
//!
//! Token: `tkb_`, then base64url of `body ‖ tag`. Layout of the body: `fmt: u8, kid: u8, flags: u8,
//! sid: [u8; 16], proved_at: u32, expires: u32, stamp: u64`. In total, 35 bytes. `cookie/mod.rs`
//! explains the notation.

use std::sync::Arc;

use http::HeaderValue;
use tower_keep_core::{
    AuthUser, EndReason, NewLogin, SeenMark, SessionDetails, SessionRecord, Timestamp, Touch,
};

use super::change::{UnsentLogin, create};
use super::cookies::SessionId;
use super::resolve::Resolver;
use super::rules::StoredSession;
use crate::bearer_token::{BearerToken, sealed_token_in};
use crate::cookie::body::Fields;
use crate::cookie::contents::{Contents, Opened};
use crate::cookie::login_origin::{FORCED_FLAG, LoginOrigin};
use crate::error::{AuthError, LoginError};
use crate::login::issue::Issuer;
use crate::login::policy::Policy;
use crate::login::resolve::user_facts;
use crate::login::shared_rules::{LoggedIn, UserCheck, UserFacts, check_user};
use crate::login::state::{BrowserLogin, CookieChange, CookieDecision, Identity, Resolved};
use crate::random;
use crate::sessions::Sessions;
use crate::upkeep::Notes;

const FORMAT: u8 = 1;
/// The length of the body.
const BODY_BYTES: usize = 35;

/// The flag of a login whose user has not just proved who they are.
const NOT_FRESH_FLAG: u8 = 2;

/// How long a login with a token is fresh, in seconds.
const FRESH_FOR: u32 = 10 * 60;

/// The contents of a token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bearer {
    pub(crate) id: SessionId,
    /// Whether the application has logged the user in although the user was inactive.
    pub(crate) is_forced: bool,
    /// Whether the login was fresh when the token was issued.
    pub(crate) is_fresh: bool,
    /// When the user proved who they are; the time of issue if the login is not fresh.
    pub(crate) proved_at: u32,
    pub(crate) expires: u32,
    /// The keyed digest of the user's security stamp.
    pub(crate) stamp: u64,
}

impl Contents for Bearer {
    fn write(&self, kid: u8, body: &mut Vec<u8>) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.is_forced, FORCED_FLAG) | flag(!self.is_fresh, NOT_FRESH_FLAG);
        body.extend([FORMAT, kid, flags]);
        body.extend(self.id.0);
        body.extend(self.proved_at.to_be_bytes());
        body.extend(self.expires.to_be_bytes());
        body.extend(self.stamp.to_be_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let flags = fields.head(FORMAT, FORCED_FLAG | NOT_FRESH_FLAG)?;
        let read = Self {
            is_forced: flags & FORCED_FLAG != 0,
            is_fresh: flags & NOT_FRESH_FLAG == 0,
            id: SessionId(fields.array()?),
            proved_at: fields.u32()?,
            expires: fields.u32()?,
            stamp: fields.u64()?,
        };
        fields.rest()?.is_empty().then_some(read)
    }

    fn encoded_len(&self) -> usize {
        BODY_BYTES
    }
}

/// What the rules decide about a token.
#[derive(Debug, PartialEq)]
struct TokenVerdict {
    logged_in: LoggedIn,
    /// Whether the session ends, because its user is inactive.
    ends_session: bool,
    /// Whether to set the seen mark: no earlier request has used the session.
    marks_seen: bool,
    /// Whether to write the record's time of last use.
    is_touched: bool,
}

impl TokenVerdict {
    const NOBODY: Self = Self {
        logged_in: LoggedIn::Nobody,
        ends_session: false,
        marks_seen: false,
        is_touched: false,
    };
}

/// Decides whether a token logs in its user. `stored` is the session, if there is one.
///
/// | condition | who is logged in | store |
/// | --- | --- | --- |
/// | the token or the record has expired, no record, ended, another user acts as this user | nobody | |
/// | the user no longer exists, or has another security stamp | nobody | |
/// | user inactive, and the login was not forced | nobody | end |
/// | otherwise | the user, fresh until ten minutes after the proof | record the time of use |
fn decide(
    token: &Bearer,
    stored: Option<&StoredSession>,
    policy: &Policy,
    now: u32,
) -> TokenVerdict {
    let Some(StoredSession { record, user }) = stored else { return TokenVerdict::NOBODY };
    let is_live = now < token.expires && record.is_live(Timestamp::from_secs(now));
    if !is_live || record.acting_user.is_some() {
        return TokenVerdict::NOBODY;
    }
    let login_origin = LoginOrigin { is_forced: token.is_forced, ..LoginOrigin::PASSWORD };
    let stamp_matches = |facts: &UserFacts| facts.session_stamp_matches;
    let facts = match check_user(*user, stamp_matches, login_origin) {
        UserCheck::Passes(facts) => facts,
        UserCheck::IsGone | UserCheck::HasNewStamp => return TokenVerdict::NOBODY,
        UserCheck::IsInactive => {
            return TokenVerdict { ends_session: true, ..TokenVerdict::NOBODY };
        }
    };
    let is_fresh = token.is_fresh && now.saturating_sub(token.proved_at) < FRESH_FOR;
    let unused_for = now.saturating_sub(record.last_seen.as_secs());
    TokenVerdict {
        logged_in: LoggedIn::User {
            fresh_since: Some(token.proved_at).filter(|_| is_fresh),
            is_active: facts.is_active,
        },
        ends_session: false,
        marks_seen: policy.marks_first_use && record.seen_at.is_none(),
        is_touched: unused_for >= policy.touch_interval,
    }
}

impl<U: AuthUser> Resolver<'_, U> {
    /// Resolves the token of a request to a user. The token decides alone: without a valid one,
    /// nobody is logged in, and neither the cookies nor the request loaders are asked.
    pub(in crate::login) async fn resolve_bearer(
        &self,
        token: &HeaderValue,
    ) -> Result<Resolved<U>, AuthError> {
        let (config, now) = (self.config, self.config.now());
        let Some(opened) =
            sealed_token_in(token).and_then(|sealed| config.keyring.bearer.open(sealed))
        else {
            return Ok(resolved(Identity::Anonymous, BrowserLogin::Nothing));
        };
        let Opened { cookie: token, slot }: Opened<Bearer> = opened;
        let login = self.sessions.store.load_login(&token.id.key(), None).await?;
        let user = login.as_ref().and_then(|login| login.user.clone());
        let stored = login.map(|login| StoredSession {
            user: login.user.map(|user| {
                user_facts(config, &*user, Some((slot, &login.record.user, token.stamp)), None)
            }),
            record: login.record,
        });
        let verdict = decide(&token, stored.as_ref(), &config.policy, now);
        let Some(StoredSession { record, .. }) = stored else {
            return Ok(resolved(Identity::Anonymous, BrowserLogin::Nothing));
        };
        if verdict.ends_session {
            self.end_inactive(&record).await?;
        }
        if verdict.marks_seen || verdict.is_touched {
            Box::pin(self.note_use_of_token(&verdict, &record, now)).await?;
        }
        let browser_login = match verdict.logged_in {
            LoggedIn::User { .. } => BrowserLogin::Bearer(record),
            LoggedIn::Nobody => BrowserLogin::Nothing,
        };
        Ok(resolved(Identity::resolved(verdict.logged_in, user, false), browser_login))
    }

    async fn end_inactive(&self, record: &Arc<SessionRecord>) -> Result<(), AuthError> {
        self.end_session(record, EndReason::Inactive).await.map(|_| ())
    }

    async fn note_use_of_token(
        &self,
        verdict: &TokenVerdict,
        record: &SessionRecord,
        now: u32,
    ) -> Result<(), AuthError> {
        let (key, at) = (record.key, Timestamp::from_secs(now));
        let seen = verdict.marks_seen.then_some(SeenMark::new(key, record.generation, at));
        // A use does not extend the life of the session.
        let touch = verdict.is_touched.then_some(Touch::new(key, at, record.expires));
        self.write_notes(record, Notes { seen, touch }).await
    }
}

/// Logs in a user with a token, which is valid for this many seconds. `fresh_since` is when the
/// user has proved who they are; `None` if the login is not fresh. The login replaces no session,
/// because the browser that asks for the token may be logged in itself.
pub(in crate::login) async fn log_in<'a, U: AuthUser>(
    issuer: &Issuer<'a, U>,
    sessions: &'a Sessions<U>,
    fresh_since: Option<u32>,
    seconds: u32,
    details: SessionDetails,
) -> Result<(BearerToken, UnsentLogin<'a, U>), LoginError> {
    let (config, now, user) = (issuer.config, issuer.now, issuer.user.id());
    let (id, at) = (SessionId(random::bytes()?), Timestamp::from_secs(now));
    let expires = at.plus(seconds);
    let stamp = issuer.stamp_digest(&user);
    let mut record = SessionRecord::new(id.key(), user, random::bytes()?, at, expires);
    record.details = details;
    let mut new_login = NewLogin::new(&record, at.plus(config.policy.grace));
    // A program would not show the user that a copy of a remember cookie was used.
    new_login.notifies_user = false;
    let (_, unsent) = create(config, sessions, new_login).await?;
    let token = Bearer {
        id,
        is_forced: !issuer.user.is_active(),
        is_fresh: fresh_since.is_some(),
        proved_at: fresh_since.unwrap_or(now),
        expires: expires.as_secs(),
        stamp,
    };
    let token = BearerToken::new(&config.keyring.bearer.seal(&token), at, expires);
    Ok((token, unsent))
}

/// Returns the result of resolving a token. It changes no cookie.
fn resolved<U>(identity: Identity<U>, browser_login: BrowserLogin) -> Resolved<U> {
    let cookies = CookieDecision {
        browser_login,
        session_cookie: CookieChange::Keep,
        remember_cookie: CookieChange::Keep,
        write_until: None,
    };
    Resolved { identity, cookies, asked_loaders: false }
}

#[cfg(test)]
mod tests {
    use tower_keep_core::{Ended, UserId};

    use super::*;
    use crate::login::rules_fixtures::{NOW, policy};

    fn token() -> Bearer {
        let id = SessionId([7; 16]);
        let (proved_at, expires) = (NOW - 100, NOW + 100);
        Bearer { id, is_forced: false, is_fresh: true, proved_at, expires, stamp: 5 }
    }

    fn stored() -> StoredSession {
        let (created, expires) = (Timestamp::from_secs(NOW - 100), Timestamp::from_secs(NOW + 100));
        let user = UserId::from("7");
        let record = SessionRecord::new(token().id.key(), user, [0; 16], created, expires);
        let facts = UserFacts {
            is_active: true,
            session_stamp_matches: true,
            remember_stamp_matches: false,
        };
        StoredSession { record: record.into(), user: Some(facts) }
    }

    #[test]
    fn a_token_has_the_documented_layout() {
        let mut body = Vec::new();
        token().write(0xAA, &mut body);
        assert_eq!(body.len(), BODY_BYTES);
        assert_eq!(body[..3], [1, 0xAA, 0]);
        assert_eq!(Bearer::read(&body), Some(token()));
        for (index, byte) in [(0, 2), (2, 4), (2, 0x80)] {
            let mut unknown = body.clone();
            unknown[index] = byte;
            assert_eq!(Bearer::read(&unknown), None, "{index}");
        }
        body.push(0);
        assert_eq!(Bearer::read(&body), None);
    }

    #[test]
    fn only_a_live_session_of_an_unchanged_user_is_logged_in() {
        let change = |change: fn(&mut SessionRecord)| {
            let mut stored = stored();
            change(Arc::make_mut(&mut stored.record));
            Some(stored)
        };
        let user = |change: fn(&mut UserFacts)| {
            let mut stored = stored();
            stored.user.iter_mut().for_each(change);
            Some(stored)
        };
        let ends = TokenVerdict { ends_session: true, ..TokenVerdict::NOBODY };
        for (name, token, stored, expected) in [
            ("no record", token(), None, TokenVerdict::NOBODY),
            (
                "expired token",
                Bearer { expires: NOW, ..token() },
                Some(stored()),
                TokenVerdict::NOBODY,
            ),
            (
                "expired record",
                token(),
                change(|record| record.expires = Timestamp::from_secs(NOW)),
                TokenVerdict::NOBODY,
            ),
            (
                "ended",
                token(),
                change(|record| {
                    record.ended = Some(Ended::new(record.created, EndReason::Revoked))
                }),
                TokenVerdict::NOBODY,
            ),
            (
                "another user acts",
                token(),
                change(|record| record.acting_user = Some("1".into())),
                TokenVerdict::NOBODY,
            ),
            (
                "no user",
                token(),
                Some(StoredSession { user: None, ..stored() }),
                TokenVerdict::NOBODY,
            ),
            (
                "new stamp",
                token(),
                user(|user| user.session_stamp_matches = false),
                TokenVerdict::NOBODY,
            ),
            ("inactive", token(), user(|user| user.is_active = false), ends),
        ] {
            assert_eq!(decide(&token, stored.as_ref(), &policy(), NOW), expected, "{name}");
        }
    }

    #[test]
    fn a_login_with_a_token_is_fresh_for_ten_minutes() {
        for (age, expected) in [(0, true), (FRESH_FOR - 1, true), (FRESH_FOR, false)] {
            let token = Bearer { proved_at: NOW - age, ..token() };
            let verdict = decide(&token, Some(&stored()), &policy(), NOW);
            let fresh_since = Some(token.proved_at).filter(|_| expected);
            assert_eq!(verdict.logged_in, LoggedIn::User { fresh_since, is_active: true }, "{age}");
        }
        // The clock of another server is ahead.
        let token = Bearer { proved_at: NOW + 5, ..token() };
        let verdict = decide(&token, Some(&stored()), &policy(), NOW);
        let fresh_since = Some(NOW + 5);
        assert_eq!(verdict.logged_in, LoggedIn::User { fresh_since, is_active: true });
    }
}
