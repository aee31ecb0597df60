//! Building a layer from its settings: checking whether they agree, and deriving the rest from
//! them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use tower_keep_core::{AuthUser, LoginStore, SessionLimit, UserStore, WhenFull};

use super::builder::Settings;
use super::{Config, LoginLayer, LoginLayerBuilder};
use crate::client::TrustedProxies;
use crate::cookie::{CookieTemplate, TEXT_LIMIT};
use crate::error::BuildError;
use crate::flash::{Flash, FlashKind};
use crate::keys::{Binding, Keyring, Mode};
use crate::loader::RequestLoader;
use crate::page::{Page, origin_of};
use crate::rules::Policy;
use crate::sessions::Sessions;
use crate::upkeep::Upkeep;

impl<S: UserStore + 'static> LoginLayerBuilder<S> {
    /// Checks all settings, derives the keys, and creates the layer.
    ///
    /// # Errors
    ///
    /// Returns an error for the first setting that is invalid or does not agree with another one.
    /// The message says how to fix it.
    pub fn build(self) -> Result<LoginLayer<S::User>, BuildError> {
        let Self { store, erase, settings } = self;
        settings.check(erase.is_some())?;
        let (store, sessions): (Arc<dyn UserStore<User = S::User>>, _) = match erase {
            None => (Arc::new(store), None),
            Some(erase) => {
                let store = erase(store);
                (Arc::clone(&store) as _, Some(settings.sessions(store)?))
            }
        };
        Ok(LoginLayer { config: Arc::new(settings.config(store, sessions)?) })
    }
}

impl<U: AuthUser> Settings<U> {
    fn check(&self, has_sessions: bool) -> Result<(), BuildError> {
        self.keys.check()?;
        match self.limit {
            Some(_) if !has_sessions => Err(BuildError::SessionLimitWithoutSessions),
            Some(SessionLimit { max: 0, .. }) => Err(BuildError::SessionLimit),
            _ => Ok(()),
        }
    }

    fn sessions(&self, store: Arc<dyn LoginStore<User = U>>) -> Result<Sessions<U>, BuildError> {
        let flash = |text: &String| match text.len() {
            ..=TEXT_LIMIT => Ok(Flash::new(FlashKind::Replayed, "warning".into(), text.clone())),
            length => Err(BuildError::FlashTooLong { length }),
        };
        let message = self.replay_message.as_ref().filter(|_| self.messages);
        let replay_flash = message.map(flash).transpose()?;
        Ok(Sessions { store, limit: self.limit, replay_flash, upkeep: Upkeep::default() })
    }

    fn config(
        self,
        store: Arc<dyn UserStore<User = U>>,
        sessions: Option<Sessions<U>>,
    ) -> Result<Config<U>, BuildError> {
        let [session, remember, flash] = self.cookies()?;
        let policy = self.policy()?;
        let mut responses = self.responses;
        let without_field = |page: Page| page.without_field(&self.next_field);
        responses.login_page = responses.login_page.map(without_field);
        responses.confirm_page = responses.confirm_page.map(without_field);
        if !self.messages {
            (responses.login_message, responses.confirm_message) = (None, None);
        }
        responses.check_messages()?;
        if self.next_field.is_empty() {
            return Err(BuildError::NextField);
        }
        let mut never_next: Vec<String> = responses.local_paths().map(str::to_owned).collect();
        let pages = [&self.logout_page].into_iter().chain(&self.never_next);
        never_next.extend(pages.map(|page| page.path().to_owned()));
        let binding = Binding {
            mode: if sessions.is_some() { Mode::ServerSide } else { Mode::Stateless },
            area: &self.area,
            session: session.name(),
            remember: remember.name(),
            flash: flash.name(),
        };
        Ok(Config {
            keyring: Keyring::derive(&self.keys, &binding),
            store,
            sessions,
            clock: self.clock,
            policy,
            session_cookie: session,
            remember_cookie: remember,
            flash_cookie: flash,
            remember_duration: seconds(self.remember_duration, "remember duration")?,
            client_match: self.client_match,
            proxies: TrustedProxies(networks(self.proxies)?),
            loader_headers: declared(&self.loaders),
            loaders: self.loaders,
            listeners: self.listeners,
            anonymous: self.anonymous,
            responses,
            next_field: self.next_field,
            next_in_cookie: self.next_in_cookie,
            public_origin: self.public_origin.map(public_origin).transpose()?,
            home: self.home,
            never_next,
            exempts_options_method: self.exempts_options_method,
            all_are_pages: self.all_are_pages,
            warned_of_same_name: AtomicBool::new(false),
            warned_of_no_address: AtomicBool::new(false),
        })
    }

    /// Returns the three cookies: session, remember, flash.
    fn cookies(&self) -> Result<[CookieTemplate; 3], BuildError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        // With the area `remember`, the session cookie would have the name of the site's remember
        // cookie.
        let last = self.area.rsplit('-').next();
        if !self.area.bytes().all(is_word) || matches!(last, Some("remember" | "flash")) {
            return Err(BuildError::Area { area: self.area.clone() });
        }
        let session = self.session.resolve(&self.area, "")?;
        let remember = self.remember.resolve(&self.area, "remember")?;
        let flash = self
            .session
            .clone()
            .with_name(format!("{}-flash", session.name()))
            .resolve(&self.area, "flash")?;
        refuse_same_names(&[&session, &remember, &flash])?;
        if !(self.session.is_secure() && self.remember.is_secure()) {
            tracing::warn!(
                "login cookies are set without Secure, so browsers also send them over plain \
                 HTTP, where others can read them"
            );
        }
        Ok([session, remember, flash])
    }

    fn policy(&self) -> Result<Policy, BuildError> {
        let idle = self.idle.map(|limit| seconds(limit, "idle limit")).transpose()?;
        let touch = seconds(self.touch, "touch interval")?;
        // A slow response may write its cookies within half of the grace, which must not be zero.
        let grace = seconds(self.grace, "rotation grace")?.max(2);
        Ok(Policy {
            protection: self.protection,
            persistent: self.persistent,
            idle,
            renewal: idle.map(Policy::renewal_of),
            absolute: self.absolute.map(|limit| seconds(limit, "absolute limit")).transpose()?,
            refresh_remember: self.refresh_remember,
            grace,
            touch: idle.map_or(touch, |idle| touch.min(Policy::renewal_of(idle))),
            notes_first_use: self.limit.is_some_and(|limit| limit.when_full == WhenFull::Refuse),
        })
    }
}

fn refuse_same_names(templates: &[&CookieTemplate]) -> Result<(), BuildError> {
    for (index, template) in templates.iter().enumerate() {
        if templates[..index].iter().any(|other| other.name() == template.name()) {
            return Err(BuildError::SameCookieName { name: template.name().to_owned() });
        }
    }
    Ok(())
}

/// Converts a limit to seconds: at least one second, and at most half of the range of the times in
/// cookies.
fn seconds(limit: Duration, name: &'static str) -> Result<u32, BuildError> {
    match i32::try_from(limit.as_secs()) {
        Ok(seconds @ 1..) => Ok(seconds.unsigned_abs()),
        _ => Err(BuildError::Limit { limit: name }),
    }
}

fn networks(proxies: Vec<String>) -> Result<Vec<IpNet>, BuildError> {
    let parse = |network: String| {
        let address = || network.parse::<std::net::IpAddr>().map(IpNet::from).ok();
        network.parse().ok().or_else(address).ok_or(BuildError::TrustedProxy { network })
    };
    proxies.into_iter().map(parse).collect()
}

fn public_origin(origin: String) -> Result<String, BuildError> {
    if origin_of(&origin).as_ref() == Some(&origin) {
        Ok(origin)
    } else {
        Err(BuildError::PublicOrigin { origin })
    }
}

fn declared<U>(loaders: &[Arc<dyn RequestLoader<U>>]) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for name in loaders.iter().flat_map(|loader| loader.headers()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
