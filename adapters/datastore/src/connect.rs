//! Finds the address of the service, the credentials and the project, and opens the connection.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use gcloud_sdk::google_cloud_auth::credentials::{Credentials, anonymous};
use gcloud_sdk::tonic::transport::{Channel, ClientTlsConfig};
use gcloud_sdk::{GCP_DEFAULT_SCOPES, GoogleAuthHeaders, GoogleEnvironment};

use crate::error::Error;
use crate::url::{GOOGLE, checked_endpoint, emulator_url};

/// A connection without traffic for this long gets a ping.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A connection on which the response to a ping takes longer than this is closed.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The application's settings for the connection. In place of a setting that is `None`, the store
/// uses the environment.
#[derive(Clone, Default)]
pub(crate) struct Access {
    pub(crate) endpoint: Option<String>,
    pub(crate) emulator: Option<String>,
    pub(crate) key: Option<ServiceAccountKey>,
}

/// The key of a service account, which is JSON: in a file, or as text.
#[derive(Clone)]
pub(crate) enum ServiceAccountKey {
    File(PathBuf),
    Json(String),
}

/// The address of the service, and the credentials for it.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) credentials: GoogleAuthHeaders,
    /// The project in the service account's key that the application has set.
    key_project: Option<String>,
    is_emulator: bool,
}

impl Access {
    /// Returns the address of the service, and the credentials for it.
    pub(crate) async fn open(&self) -> Result<Endpoint, Error> {
        let host = self.emulator.clone().or_else(|| variable("DATASTORE_EMULATOR_HOST"));
        // The application's settings take precedence over the environment.
        let host = host.filter(|_| self.emulator.is_some() || self.endpoint.is_none());
        if let Some(host) = host {
            let anonymous: Credentials = anonymous::Builder::new().build();
            return Ok(Endpoint {
                url: emulator_url(&host),
                credentials: GoogleAuthHeaders::from(anonymous),
                key_project: None,
                is_emulator: true,
            });
        }
        let url = checked_endpoint(self.endpoint.as_deref().unwrap_or(GOOGLE))?;
        // If several crypto providers are in the build, rustls needs one to be installed. If the
        // application has installed none, the store installs `ring`.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let key = self.key_json().await?;
        let key_project =
            key.as_ref().and_then(|key| Some(key.get("project_id")?.as_str()?.to_owned()));
        let key_project = key_project.filter(|project| !project.is_empty());
        let credentials = match key {
            Some(key) => {
                GoogleAuthHeaders::from_service_account_key(key, GCP_DEFAULT_SCOPES.clone()).await
            }
            None => GoogleAuthHeaders::from_adc().await,
        };
        let credentials = credentials.map_err(|error| Error::from_credentials(&error))?;
        Ok(Endpoint { url, credentials, key_project, is_emulator: false })
    }

    /// Returns the service account's key that the application has set.
    async fn key_json(&self) -> Result<Option<serde_json::Value>, Error> {
        let json = match &self.key {
            Some(ServiceAccountKey::File(path)) => {
                let unreadable = |error| Error::unsupported(format!("{}: {error}", path.display()));
                Cow::Owned(tokio::fs::read_to_string(path).await.map_err(unreadable)?)
            }
            Some(ServiceAccountKey::Json(json)) => Cow::Borrowed(json.as_str()),
            None => return Ok(None),
        };
        // The error of serde is left out, because it may quote the key.
        let key = serde_json::from_str(&json).ok().filter(serde_json::Value::is_object);
        let message = "the service account's key is not JSON: use the file as the console or \
                       gcloud wrote it";
        key.map(Some).ok_or_else(|| Error::unsupported(message))
    }
}

impl Endpoint {
    /// Returns the project. It comes from the first of these sources that has one: the URL, the
    /// service account's key, the environment, the metadata server of the machine.
    pub(crate) async fn project(&self, from_url: Option<String>) -> Result<String, Error> {
        let variables = ["DATASTORE_PROJECT_ID", "GOOGLE_CLOUD_PROJECT"];
        let from_environment = || variables.into_iter().find_map(variable);
        let named = from_url.or_else(|| self.key_project.clone()).or_else(from_environment);
        let project = match named {
            // An emulator accepts any project, and there is no metadata server to ask.
            None if !self.is_emulator => GoogleEnvironment::detect_google_project_id().await,
            project => project,
        };
        project.ok_or_else(unknown_project)
    }
}

/// The error if no project was found.
pub(crate) fn unknown_project() -> Error {
    Error::unsupported(
        "no project was found: name it in the URL, datastore://PROJECT, or in the environment \
         variable DATASTORE_PROJECT_ID",
    )
}

/// Returns the value of an environment variable, or `None` if it is not set or empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Creates a connection that is not open yet. The first request to the service opens the
/// connection. If the connection is lost, the next request opens it again.
pub(crate) fn channel(url: &str, timeout: Duration) -> Result<Channel, Error> {
    let invalid = |_| {
        Error::unsupported(
            "the endpoint is not an address: use https://HOST, or HOST:PORT for an emulator",
        )
    };
    let mut endpoint = Channel::from_shared(url.to_owned()).map_err(invalid)?;
    if url.starts_with("https://") {
        let tls = ClientTlsConfig::new().with_webpki_roots();
        endpoint = endpoint.tls_config(tls).map_err(|_| {
            Error::unsupported("TLS can't be used with the endpoint: check its address")
        })?;
    }
    Ok(endpoint
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEP_ALIVE_INTERVAL))
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy())
}
