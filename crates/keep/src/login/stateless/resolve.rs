//! Resolving the cookies of a request without server-side sessions.

use std::sync::Arc;

use tower_keep_core::{AuthUser, UserId};

use super::issue::{decision_without_new_cookies, follow_verdict};
use super::remember_cookie::Remember;
use super::rules::{Presented, Rules, SessionChange, Step};
use super::session_cookie::Session;
use crate::cookie::contents::Opened;
use crate::error::AuthError;
use crate::layer::config::Config;
use crate::login::issue::Issuer;
use crate::login::resolve::{ask_loaders, is_same_client, raise_events, user_facts};
use crate::login::snapshot::Snapshot;
use crate::login::state::{Identity, Resolved};

/// Resolves the verified cookies of a request to a user.
pub(in crate::login) async fn resolve<U: AuthUser>(
    config: &Config<U>,
    snapshot: &Snapshot,
    session: Option<&Opened<Session>>,
    remember: Option<&Opened<Remember>>,
) -> Result<Resolved<U>, AuthError> {
    let now = config.now();
    let client = session.map(|opened| (opened.slot, opened.cookie.client));
    let is_same_client = is_same_client(config, snapshot, client);
    let presented = Presented { now, session, remember, is_same_client };
    let mut rules = Rules::new(&config.policy, presented);

    let mut step = rules.start();
    let mut loaded_id: Option<&UserId> = None;
    let mut user: Option<Arc<U>> = None;
    let mut asked_loaders = false;
    loop {
        match step {
            Step::Load(id) => {
                // If both cookies name the same user, the user is loaded only once.
                if loaded_id != Some(id) {
                    user = config.store.by_id(id).await?;
                    loaded_id = Some(id);
                }
                let of_session =
                    session.map(|opened| (opened.slot, &opened.cookie.user, opened.cookie.stamp));
                let of_remember =
                    remember.map(|opened| (opened.slot, &opened.cookie.user, opened.cookie.stamp));
                let facts = |user: &U| user_facts(config, user, of_session, of_remember);
                step = rules.loaded(user.as_deref().map(facts));
            }
            Step::AskLoaders => {
                asked_loaders = true;
                user = match &config.loaders[..] {
                    [] => None,
                    loaders => ask_loaders(loaders, snapshot).await?,
                };
                break;
            }
            Step::Done => break,
        }
    }
    let verdict = rules.finish();
    let is_restored = matches!(verdict.session, SessionChange::Restore(_));
    raise_events(config, verdict.is_other_client, is_restored, user.as_ref(), asked_loaders);
    let cookies = match &user {
        Some(user) => {
            let issuer = Issuer { config, snapshot, user: &**user, now };
            follow_verdict(&issuer, &verdict, session, remember)?
        }
        None => decision_without_new_cookies(&verdict),
    };
    let identity = Identity::resolved(verdict.logged_in, user, asked_loaders);
    Ok(Resolved { identity, cookies, asked_loaders })
}
