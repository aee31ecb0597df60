//! How the service is reached: its address, the credentials and the project.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use gcloud_sdk::google_cloud_auth::credentials::{Credentials, anonymous};
use gcloud_sdk::tonic::transport::{Channel, ClientTlsConfig};
use gcloud_sdk::{GCP_DEFAULT_SCOPES, GoogleAuthHeaders, GoogleEnvironment};

use crate::error::Error;
use crate::url::{GOOGLE, checked_endpoint, emulator_url};

/// How long a connection may be silent before a ping, and how long the response to a ping may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the application has set. The rest comes from the environment.
#[derive(Clone, Default)]
pub(crate) struct Access {
    pub(crate) endpoint: Option<String>,
    pub(crate) emulator: Option<String>,
    pub(crate) key: Option<ServiceAccountKey>,
}

/// Where the key of a service account is.
#[derive(Clone)]
pub(crate) enum ServiceAccountKey {
    File(PathBuf),
    Json(String),
}

/// The address of the service, and the credentials for it.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) credentials: GoogleAuthHeaders,
    /// The project of the service account's key.
    project: Option<String>,
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
                project: None,
                is_emulator: true,
            });
        }
        let url = checked_endpoint(self.endpoint.as_deref().unwrap_or(GOOGLE))?;
        // With several of rustls's providers in the build, the application has to install one of
        // them. If it has installed none, this installs `ring`.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let key = self.key_json().await?;
        let project =
            key.as_ref().and_then(|key| Some(key.get("project_id")?.as_str()?.to_owned()));
        let project = project.filter(|project| !project.is_empty());
        let credentials = match key {
            Some(key) => {
                GoogleAuthHeaders::from_service_account_key(key, GCP_DEFAULT_SCOPES.clone()).await
            }
            None => GoogleAuthHeaders::from_adc().await,
        };
        let credentials = credentials.map_err(|error| Error::from_credentials(&error))?;
        Ok(Endpoint { url, credentials, project, is_emulator: false })
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
        // serde's error may quote what is in the key.
        let key = serde_json::from_str(&json).ok().filter(serde_json::Value::is_object);
        let words = "the service account's key is not JSON: is it the file that the console or gcloud wrote?";
        key.map(Some).ok_or_else(|| Error::unsupported(words))
    }
}

impl Endpoint {
    /// Returns the project of the URL; otherwise of the key, of the environment, or of the machine.
    pub(crate) async fn project(&self, from_url: Option<String>) -> Result<String, Error> {
        let variables = ["DATASTORE_PROJECT_ID", "GOOGLE_CLOUD_PROJECT"];
        let named = || variables.into_iter().find_map(variable);
        let project = match from_url.or_else(|| self.project.clone()).or_else(named) {
            // An emulator accepts any project, and there is no metadata server to ask.
            None if !self.is_emulator => GoogleEnvironment::detect_google_project_id().await,
            project => project,
        };
        project.ok_or_else(unknown_project)
    }
}

/// The error if the project is not set anywhere.
pub(crate) fn unknown_project() -> Error {
    Error::unsupported(
        "which project? name it in the URL, datastore://PROJECT, or in DATASTORE_PROJECT_ID",
    )
}

/// Returns an environment variable, if it is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Creates a connection that is opened when it is first used, and reopened when it is lost.
pub(crate) fn channel(url: &str, timeout: Duration) -> Result<Channel, Error> {
    let bad = |_| Error::unsupported("the endpoint is not an address");
    let mut endpoint = Channel::from_shared(url.to_owned()).map_err(|_| {
        Error::unsupported(
            "the endpoint is not an address: https://HOST, or HOST:PORT of an emulator",
        )
    })?;
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots()).map_err(bad)?;
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
