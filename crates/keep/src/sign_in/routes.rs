//! Ready-made routes for axum: to log in, to confirm, and to log out.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use http::header::{CONTENT_SECURITY_POLICY, ORIGIN, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use tower_keep_core::{AuthUser, PasswordUser};

use super::check::{PasswordCheck, PasswordSignIn};
use super::page::SignInPage;
use crate::error::LoginError;
use crate::flash::Flash;
use crate::guard::gate::missing_layer;
use crate::guard::reason::Rejection;
use crate::layer::config::Config;
use crate::login::handle::AuthSession;
use crate::origin::Host;
use crate::page::Page;
use crate::target::LocalTarget;

/// A form has at most this many bytes.
const MAX_FORM_BYTES: usize = 16 * 1_024;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl<U: PasswordUser> PasswordSignIn<U> {
    /// Returns routes with which users log in, confirm their login, and log out.
    ///
    /// | route | what it does |
    /// | --- | --- |
    /// | GET, POST at the [login page](crate::LoginLayerBuilder::with_login_page), or `/login` | shows the form; logs in, and returns to the requested page |
    /// | GET, POST at the [confirm page](crate::LoginLayerBuilder::with_confirm_page), if it is set and is another page | the same, to confirm a login |
    /// | POST at the [logout page](crate::LoginLayerBuilder::with_logout_page), by default `/logout` | logs out, and returns to the login page |
    ///
    /// A wrong password is a 422, too many attempts are a 429 with `Retry-After`, a form of another
    /// site is a 403, and a form of more than 16 KiB a 413. The pages are HTML for every client,
    /// and no other page can show them in a frame. For scripts and apps, write handlers with
    /// [`check`](Self::check).
    ///
    /// Merge the routes at the root of the site, inside the layer and outside of all guards. They
    /// refuse forms of other sites, so they need no other protection against cross-site requests.
    /// The rest of the site does: put tower-http's `csrf` layer around it. If layers of several
    /// areas are around the routes, the routes use the layer that the sign-in was created with.
    ///
    /// # Panics
    ///
    /// Panics if the logout page is also the login page or the confirm page.
    ///
    /// ```
    /// use axum::Router;
    /// use axum::routing::get;
    /// use tower_keep::error::BuildError;
    /// use tower_keep::layer::LoginService;
    /// use tower_keep::{Account, Keys, LoginLayer, PasswordSignIn};
    /// use tower_keep_memory::MemoryStore;
    ///
    /// fn site(
    ///     store: MemoryStore<Account>,
    ///     keys: Keys,
    /// ) -> Result<LoginService<Router, Account>, BuildError> {
    ///     let auth_layer =
    ///         LoginLayer::builder(store.clone(), keys).with_login_page("/login")?.build()?;
    ///     let sign_in = PasswordSignIn::new(&auth_layer, store);
    ///     let site = Router::new()
    ///         .route("/account", get("your account"))
    ///         .route_layer(auth_layer.require_login())
    ///         .merge(sign_in.routes());
    ///     Ok(auth_layer.layer(site))
    /// }
    /// ```
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let config = &self.inner.auth_layer.config;
        let local =
            |page: &Option<Page>| page.as_ref().and_then(Page::local_path).map(str::to_owned);
        let login_path = local(&config.responses.login_page).unwrap_or_else(|| "/login".to_owned());
        let confirm_path = local(&config.responses.confirm_page).filter(|path| *path != login_path);
        let mut routes = Router::new()
            .route(&login_path, self.form_routes(Form::Login))
            .route(config.logout_page.path(), self.log_out_route(login_path.clone()));
        if let Some(confirm_path) = confirm_path {
            routes = routes.route(&confirm_path, self.form_routes(Form::Confirm));
        }
        routes
    }

    /// Sets the HTML of the pages of [`routes`](Self::routes).
    ///
    /// ```
    /// # use tower_keep::{Account, PasswordSignIn};
    /// # fn example(sign_in: PasswordSignIn<Account>) {
    /// let sign_in = sign_in.with_page(|page| {
    ///     format!("<!doctype html><title>My site</title><h1>{}</h1>{}", page.title(), page.form())
    /// });
    /// # let _ = sign_in; }
    /// ```
    #[must_use]
    pub fn with_page(
        self,
        page: impl Fn(&SignInPage<'_>) -> String + Send + Sync + 'static,
    ) -> Self {
        self.with(|inner| inner.page = Arc::new(page))
    }

    fn form_routes<S: Clone + Send + Sync + 'static>(&self, form: Form) -> MethodRouter<S> {
        let (for_get, for_post) = (self.clone(), self.clone());
        let show = move |request: Request| async move {
            match for_get.auth_session(&request) {
                Ok(auth) => for_get.show(form, &auth, request.uri().path()).await,
                Err(response) => *response,
            }
        };
        let receive = move |request: Request| async move {
            match for_post.auth_session(&request) {
                Ok(auth) => for_post.receive(form, &auth, request).await,
                Err(response) => *response,
            }
        };
        get(show).post(receive)
    }

    fn log_out_route<S: Clone + Send + Sync + 'static>(
        &self,
        login_path: String,
    ) -> MethodRouter<S> {
        let sign_in = self.clone();
        post(move |request: Request| async move {
            let auth = match sign_in.auth_session(&request) {
                Ok(auth) => auth,
                Err(response) => return *response,
            };
            if !is_own_request(auth.config(), &request) {
                return reject(&auth, Rejection::Forbidden, request);
            }
            match auth.log_out().await {
                Ok(_) => Redirect::to(&login_path).into_response(),
                Err(error) => error.into_response(),
            }
        })
    }

    /// Returns the handle of the sign-in's own layer, even if layers of other areas are inside it.
    fn auth_session(&self, request: &Request) -> Result<AuthSession<U>, Box<Response>> {
        let found = self.inner.auth_layer.auth_session(request.extensions());
        found.ok_or_else(|| {
            let (method, headers) = (request.method(), request.headers());
            let routes = "the routes of a `PasswordSignIn`";
            let response = missing_layer::<U>(routes, method, headers, request.extensions());
            Box::new(response.map(Body::from))
        })
    }

    async fn show(&self, form: Form, auth: &AuthSession<U>, path: &str) -> Response {
        let next = auth.next();
        match auth.user().await {
            Err(error) => return error.into_response(),
            // If there is no confirm page, a user who is logged in proves again who they are here.
            Ok(Some(_)) if form == Form::Login && self.has_confirm_page() => {
                let target = auth.or_home(next.clone());
                // If the home page is this page, it would lead here for ever.
                if target.path() != path {
                    return target.into_response();
                }
            }
            Ok(_) => {}
        }
        self.page(form, auth.take_flash().as_ref(), None, next.as_ref(), "").into_response()
    }

    fn has_confirm_page(&self) -> bool {
        let responses = &self.inner.auth_layer.config.responses;
        let path =
            |page: &Option<Page>| page.as_ref().and_then(Page::local_path).map(str::to_owned);
        let confirm_path = path(&responses.confirm_page);
        confirm_path.is_some() && confirm_path != path(&responses.login_page)
    }

    async fn receive(&self, form: Form, auth: &AuthSession<U>, request: Request) -> Response {
        if !is_own_request(auth.config(), &request) {
            return reject(auth, Rejection::Forbidden, request);
        }
        let (parts, body) = request.into_parts();
        let Some(fields) = Fields::read(body).await else {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        };
        let next = auth.next_from_form(fields.next.as_deref());
        let again = |status, error: &str| {
            let page = self.page(form, None, Some(error), next.as_ref(), &fields.login);
            (status, page).into_response()
        };
        // Nothing was typed, so this is no guess.
        if fields.password.is_empty() || (form == Form::Login && fields.login.is_empty()) {
            return again(StatusCode::UNPROCESSABLE_ENTITY, form.empty());
        }
        let checked = match form {
            Form::Login => self.check(auth, &fields.login, &*fields.password).await,
            Form::Confirm => match auth.user().await {
                Ok(None) => {
                    return auth.reject(Rejection::Unauthenticated, &parts).into_response();
                }
                Ok(Some(_)) => self.check_again(auth, &*fields.password).await,
                Err(error) => return error.into_response(),
            },
        };
        let user = match checked {
            Ok(PasswordCheck::Ok(user)) => user,
            Ok(PasswordCheck::Wrong) => {
                return again(StatusCode::UNPROCESSABLE_ENTITY, form.wrong());
            }
            Ok(PasswordCheck::Throttled(throttled)) => {
                let seconds = throttled.retry_after.as_secs();
                let text = format!("Too many attempts. Try again in {}.", throttled.wait());
                let mut response = again(StatusCode::TOO_MANY_REQUESTS, &text);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                return response;
            }
            Err(error) => return error.into_response(),
        };
        let done = match form {
            Form::Login => {
                let login = auth.log_in(user).with_remember(fields.is_remembered);
                login.with_method("password").await
            }
            Form::Confirm => match auth.confirm().await {
                Ok(Some(_)) => Ok(()),
                // The login has ended meanwhile, or has no session, because a loader has made it.
                Ok(None) => return auth.reject(Rejection::Unauthenticated, &parts).into_response(),
                Err(error) => Err(LoginError::from(error)),
            },
        };
        match done {
            Ok(()) => auth.or_home(next).into_response(),
            Err(LoginError::Inactive) => {
                again(StatusCode::FORBIDDEN, "This account is not active.")
            }
            Err(error) => error.into_response(),
        }
    }

    fn page(
        &self,
        form: Form,
        flash: Option<&Flash>,
        error: Option<&str>,
        next: Option<&LocalTarget>,
        login_name: &str,
    ) -> impl IntoResponse + use<U> {
        let is_confirmation = form == Form::Confirm;
        let page = SignInPage { is_confirmation, error, flash, next, login_name };
        // No other page can show the form in a frame, and have the user type into it unawares.
        let no_frames = [(CONTENT_SECURITY_POLICY, "frame-ancestors 'none'")];
        (no_frames, Html((self.inner.page)(&page)))
    }
}

/// Which form it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Login,
    Confirm,
}

impl Form {
    fn empty(self) -> &'static str {
        match self {
            Self::Login => "Enter your login name and your password.",
            Self::Confirm => "Enter your password.",
        }
    }

    fn wrong(self) -> &'static str {
        match self {
            Self::Login => "Wrong login name or password.",
            Self::Confirm => "This is not your password.",
        }
    }
}

/// The fields of a form that was sent.
#[derive(Default)]
struct Fields {
    login: String,
    password: String,
    is_remembered: bool,
    next: Option<String>,
}

impl Fields {
    /// Reads a form. Returns `None` if it is too long, or the client has stopped sending it.
    async fn read(body: Body) -> Option<Self> {
        let body = to_bytes(body, MAX_FORM_BYTES).await.ok()?;
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(&body) {
            match &*name {
                "login" => fields.login = value.into_owned(),
                "password" => fields.password = value.into_owned(),
                "remember" => fields.is_remembered = true,
                "next" => fields.next = Some(value.into_owned()),
                _ => {}
            }
        }
        Some(fields)
    }
}

/// Checks that no page of another site has sent this form. Browsers say it in `Sec-Fetch-Site`, or
/// else in `Origin`; other clients send neither.
fn is_own_request<U>(config: &Config<U>, request: &Request) -> bool {
    let header = |name: HeaderName| request.headers().get(name).map(HeaderValue::to_str);
    match (header(SEC_FETCH_SITE), header(ORIGIN)) {
        (Some(site), _) => matches!(site, Ok("same-origin" | "none")),
        (None, Some(Ok(origin))) => config.is_own_origin(origin, &Host::of(request)),
        (None, Some(Err(_))) => false,
        (None, None) => true,
    }
}

fn reject<U: AuthUser>(auth: &AuthSession<U>, rejection: Rejection, request: Request) -> Response {
    auth.reject(rejection, &request.into_parts().0).into_response()
}
