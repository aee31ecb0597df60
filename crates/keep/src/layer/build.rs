//! Building a layer from its settings: checking whether the settings agree, and deriving the
//! configuration from them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use tower_keep_core::{AuthUser, LoginStore, SessionLimit, UserStore, WhenFull};

use super::LoginLayer;
use super::builder::{LoginLayerBuilder, Settings};
use super::config::Config;
use crate::client::TrustedProxies;
use crate::cookie::settings::CookieTemplate;
use crate::error::BuildError;
use crate::flash::{Flash, FlashKind, MAX_TEXT_BYTES};
use crate::keyring::{Binding, Keyring, Mode};
use crate::loader::RequestLoader;
use crate::login::policy::Policy;
use crate::page::{Page, origin_of};
use crate::sessions::Sessions;
use crate::upkeep::Upkeep;

impl<S: UserStore + 'static> LoginLayerBuilder<S> {
    /// Checks all settings, derives the keys, and creates the layer.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is invalid or does not agree with another setting. The message
    /// says how to fix it.
    pub fn build(self) -> Result<LoginLayer<S::User>, BuildError> {
        let Self { store, into_login_store, settings } = self;
        settings.check(into_login_store.is_some())?;
        let (store, sessions): (Arc<dyn UserStore<User = S::User>>, _) = match into_login_store {
            None => (Arc::new(store), None),
            Some(into_login_store) => {
                let store = into_login_store(store);
                (Arc::clone(&store) as _, Some(settings.build_sessions(store)?))
            }
        };
        Ok(LoginLayer { config: Arc::new(settings.build_config(store, sessions)?) })
    }
}

impl<U: AuthUser> Settings<U> {
    fn check(&self, has_sessions: bool) -> Result<(), BuildError> {
        self.keys.check()?;
        if self.accepts_bearer && !has_sessions {
            return Err(BuildError::BearerWithoutSessions);
        }
        match self.session_limit {
            Some(_) if !has_sessions => Err(BuildError::SessionLimitWithoutSessions),
            Some(SessionLimit { max: 0, .. }) => Err(BuildError::SessionLimit),
            _ => Ok(()),
        }
    }

    fn build_sessions(
        &self,
        store: Arc<dyn LoginStore<User = U>>,
    ) -> Result<Sessions<U>, BuildError> {
        let replay_flash = |text: &String| match text.len() {
            ..=MAX_TEXT_BYTES => {
                Ok(Flash::new(FlashKind::Replayed, "warning".into(), text.clone()))
            }
            length => Err(BuildError::FlashTooLong { length }),
        };
        let message = self.replay_message.as_ref().filter(|_| self.leaves_messages);
        let replay_flash = message.map(replay_flash).transpose()?;
        Ok(Sessions { store, limit: self.session_limit, replay_flash, upkeep: Upkeep::default() })
    }

    fn build_config(
        self,
        store: Arc<dyn UserStore<User = U>>,
        sessions: Option<Sessions<U>>,
    ) -> Result<Config<U>, BuildError> {
        let [session, remember, flash, device] = self.build_cookies()?;
        let policy = self.build_policy()?;
        let mut responses = self.responses;
        let without_field = |page: Page| page.without_field(&self.next_field);
        responses.login_page = responses.login_page.map(without_field);
        responses.confirm_page = responses.confirm_page.map(without_field);
        if !self.leaves_messages {
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
            device: device.name(),
        };
        Ok(Config {
            is_secure: self.session_cookie.is_secure(),
            keyring: Keyring::derive(&self.keys, &binding),
            store,
            sessions,
            clock: self.clock,
            policy,
            session_cookie: session,
            remember_cookie: remember,
            flash_cookie: flash,
            device_cookie: device,
            remember_duration: whole_seconds(self.remember_duration, "remember duration")?,
            client_match: self.client_match,
            trusted_proxies: TrustedProxies(parse_networks(self.trusted_proxies)?),
            accepts_bearer: self.accepts_bearer,
            loader_headers: headers_read_by(&self.loaders),
            loaders: self.loaders,
            listeners: self.listeners,
            anonymous_user: self.anonymous_user,
            responses,
            next_field: self.next_field,
            next_in_cookie: self.next_in_cookie,
            public_origin: self
                .public_origin
                .map(|origin| check_origin(origin, |origin| BuildError::PublicOrigin { origin }))
                .transpose()?,
            allowed_origins: self
                .allowed_origins
                .into_iter()
                .map(|origin| check_origin(origin, |origin| BuildError::AllowedOrigin { origin }))
                .collect::<Result<_, _>>()?,
            realm: check_realm(self.realm.unwrap_or_else(|| match &self.area[..] {
                "" => "site".to_owned(),
                area => area.to_owned(),
            }))?,
            home_page: self.home_page,
            logout_page: self.logout_page,
            never_next,
            exempts_options_method: self.exempts_options_method,
            all_are_pages: self.all_are_pages,
            warned_of_same_name: AtomicBool::new(false),
            warned_of_no_address: AtomicBool::new(false),
            warned_of_shared_address: AtomicBool::new(false),
            warned_of_foreign_origin: AtomicBool::new(false),
        })
    }

    /// Returns the four cookies: session, remember, flash, device.
    fn build_cookies(&self) -> Result<[CookieTemplate; 4], BuildError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        // With the area `remember`, the session cookie would have the same name as the remember
        // cookie of the layer without an area.
        let last_word = self.area.rsplit('-').next();
        if !self.area.bytes().all(is_word)
            || matches!(last_word, Some("remember" | "flash" | "device"))
        {
            return Err(BuildError::Area { area: self.area.clone() });
        }
        let session = self.session_cookie.resolve(&self.area, "")?;
        let remember = self.remember_cookie.resolve(&self.area, "remember")?;
        let derived = |purpose: &str| {
            let name = format!("{}-{purpose}", session.name());
            self.session_cookie.clone().with_name(name).resolve(&self.area, purpose)
        };
        let (flash, device) = (derived("flash")?, derived("device")?);
        check_names_differ(&[&session, &remember, &flash, &device])?;
        if !(self.session_cookie.is_secure() && self.remember_cookie.is_secure()) {
            tracing::warn!(
                "login cookies are set without Secure, so browsers also send them over plain \
                 HTTP, where others can read them"
            );
        }
        Ok([session, remember, flash, device])
    }

    fn build_policy(&self) -> Result<Policy, BuildError> {
        let idle_limit =
            self.idle_limit.map(|limit| whole_seconds(limit, "idle limit")).transpose()?;
        let touch_interval = whole_seconds(self.touch_interval, "touch interval")?;
        // The cookies of a confirmation are written within half of the grace, which must not be
        // zero.
        let grace = whole_seconds(self.grace, "rotation grace")?.max(2);
        Ok(Policy {
            protection: self.protection,
            is_persistent: self.is_persistent,
            idle_limit,
            renewal_age: idle_limit.map(Policy::renewal_age_for),
            absolute_limit: self
                .absolute_limit
                .map(|limit| whole_seconds(limit, "absolute limit"))
                .transpose()?,
            refreshes_remember: self.refreshes_remember,
            grace,
            touch_interval: idle_limit
                .map_or(touch_interval, |limit| touch_interval.min(Policy::renewal_age_for(limit))),
            marks_first_use: self
                .session_limit
                .is_some_and(|limit| limit.when_full == WhenFull::Refuse),
        })
    }
}

/// Returns an error if two cookies have the same name.
fn check_names_differ(templates: &[&CookieTemplate]) -> Result<(), BuildError> {
    for (index, template) in templates.iter().enumerate() {
        if templates[..index].iter().any(|other| other.name() == template.name()) {
            return Err(BuildError::SameCookieName { name: template.name().to_owned() });
        }
    }
    Ok(())
}

/// Converts a limit to seconds. Returns an error unless it is at least one second and at most
/// `i32::MAX` seconds, which is half of the range of the times in cookies.
fn whole_seconds(limit: Duration, name: &'static str) -> Result<u32, BuildError> {
    match i32::try_from(limit.as_secs()) {
        Ok(seconds @ 1..) => Ok(seconds.unsigned_abs()),
        _ => Err(BuildError::Limit { limit: name }),
    }
}

/// Parses addresses and ranges.
fn parse_networks(proxies: Vec<String>) -> Result<Vec<IpNet>, BuildError> {
    let parse = |network: String| {
        let address = || network.parse::<std::net::IpAddr>().map(IpNet::from).ok();
        network.parse().ok().or_else(address).ok_or(BuildError::TrustedProxy { network })
    };
    proxies.into_iter().map(parse).collect()
}

/// Returns this origin, or `error` if it is not the origin of a URL, such as `https://example.org`.
fn check_origin(origin: String, error: fn(String) -> BuildError) -> Result<String, BuildError> {
    if origin_of(&origin).as_ref() == Some(&origin) { Ok(origin) } else { Err(error(origin)) }
}

/// Returns this realm, or an error if it can't be a quoted string in a header.
fn check_realm(realm: String) -> Result<String, BuildError> {
    if realm.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Ok(realm)
    } else {
        Err(BuildError::Realm { realm })
    }
}

/// Returns the names of the headers that these loaders read, each once.
fn headers_read_by<U>(loaders: &[Arc<dyn RequestLoader<U>>]) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for name in loaders.iter().flat_map(|loader| loader.headers()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
