//! How the service is reached: where it is, by which credentials, and in which project.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use gcloud_sdk::google_cloud_auth::credentials::{Credentials, anonymous};
use gcloud_sdk::tonic::transport::{Channel, ClientTlsConfig};
use gcloud_sdk::{GCP_DEFAULT_SCOPES, GoogleAuthHeaders, GoogleEnvironment};

use crate::error::Fault;
use crate::place::{self, GOOGLE};

/// How long a connection may be silent, and how long a sign of life may take.
const SILENCE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);

/// What the application says of it; the environment says the rest.
#[derive(Clone, Default)]
pub(crate) struct Access {
    pub(crate) endpoint: Option<String>,
    pub(crate) emulator: Option<String>,
    pub(crate) key: Option<ServiceAccountKey>,
}

/// Where a service account's key is.
#[derive(Clone)]
pub(crate) enum ServiceAccountKey {
    File(PathBuf),
    Json(String),
}

/// Where the service is, and what it is to know us by.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) credentials: GoogleAuthHeaders,
    /// The project of the service account's key.
    project: Option<String>,
    is_emulator: bool,
}

impl Access {
    /// Where the service is, and what it is to know us by.
    pub(crate) async fn open(&self) -> Result<Endpoint, Fault> {
        let host = self.emulator.clone().or_else(|| variable("DATASTORE_EMULATOR_HOST"));
        // What is said here counts more than the environment.
        let host = host.filter(|_| self.emulator.is_some() || self.endpoint.is_none());
        if let Some(host) = host {
            let nobody: Credentials = anonymous::Builder::new().build();
            return Ok(Endpoint {
                url: place::emulator(&host),
                credentials: GoogleAuthHeaders::from(nobody),
                project: None,
                is_emulator: true,
            });
        }
        let url = place::endpoint(self.endpoint.as_deref().unwrap_or(GOOGLE))?;
        // Where an application has several of rustls's providers, it is to choose one; if it has not, this
        // does.
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
        let credentials = credentials.map_err(|error| Fault::of_credentials(&error))?;
        Ok(Endpoint { url, credentials, project, is_emulator: false })
    }

    /// The service account's key that the application has named.
    async fn key_json(&self) -> Result<Option<serde_json::Value>, Fault> {
        let json = match &self.key {
            Some(ServiceAccountKey::File(path)) => {
                let unreadable = |error| Fault::unsupported(format!("{}: {error}", path.display()));
                Cow::Owned(tokio::fs::read_to_string(path).await.map_err(unreadable)?)
            }
            Some(ServiceAccountKey::Json(json)) => Cow::Borrowed(json.as_str()),
            None => return Ok(None),
        };
        // serde's own words may quote what is in it.
        let key = serde_json::from_str(&json).ok().filter(serde_json::Value::is_object);
        let words = "the service account's key is not JSON: is it the file that the console or gcloud wrote?";
        key.map(Some).ok_or_else(|| Fault::unsupported(words))
    }
}

impl Endpoint {
    /// The project of the URL; otherwise of the key, of the environment, or of the machine.
    pub(crate) async fn project(&self, of_url: Option<String>) -> Result<String, Fault> {
        let variables = ["DATASTORE_PROJECT_ID", "GOOGLE_CLOUD_PROJECT"];
        let named = || variables.into_iter().find_map(variable);
        let project = match of_url.or_else(|| self.project.clone()).or_else(named) {
            // An emulator takes any, and there is nobody to ask.
            None if !self.is_emulator => GoogleEnvironment::detect_google_project_id().await,
            project => project,
        };
        project.ok_or_else(unknown_project)
    }
}

/// Nobody says which project it is.
pub(crate) fn unknown_project() -> Fault {
    Fault::unsupported(
        "which project? name it in the URL, datastore://PROJECT, or in DATASTORE_PROJECT_ID",
    )
}

/// A variable that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A connection that is made when it is first used, and anew when it is lost.
pub(crate) fn channel(url: &str, timeout: Duration) -> Result<Channel, Fault> {
    let bad = |_| Fault::unsupported("the endpoint is not an address");
    let mut endpoint = Channel::from_shared(url.to_owned()).map_err(|_| {
        Fault::unsupported(
            "the endpoint is not an address: https://HOST, or HOST:PORT of an emulator",
        )
    })?;
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots()).map_err(bad)?;
    }
    Ok(endpoint
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(SILENCE))
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true)
        .connect_lazy())
}
