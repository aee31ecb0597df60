//! How the service is reached: where it is, by which credentials, and in which project.

use std::path::PathBuf;
use std::time::Duration;

use gcloud_sdk::google::datastore::v1::PartitionId;
use gcloud_sdk::google_cloud_auth::credentials::{Credentials, anonymous};
use gcloud_sdk::tonic::transport::{Channel, ClientTlsConfig};
use gcloud_sdk::{GCP_DEFAULT_SCOPES, GoogleAuthHeaders, GoogleEnvironment};

use crate::error::Fault;
use crate::place::{self, GOOGLE, Place};

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

/// Where the service is.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) is_emulator: bool,
}

impl Access {
    /// Where the service is, and what it is to know us by.
    pub(crate) async fn open(&self) -> Result<(Endpoint, GoogleAuthHeaders), Fault> {
        let host = self.emulator.clone().or_else(|| variable("DATASTORE_EMULATOR_HOST"));
        // What is said here counts more than the environment.
        let host = host.filter(|_| self.emulator.is_some() || self.endpoint.is_none());
        if let Some(host) = host {
            let endpoint = Endpoint { url: place::emulator(&host), is_emulator: true };
            let nobody: Credentials = anonymous::Builder::new().build();
            return Ok((endpoint, GoogleAuthHeaders::from(nobody)));
        }
        let url = place::endpoint(self.endpoint.as_deref().unwrap_or(GOOGLE))?;
        // Where an application has several of rustls's providers, it is to choose one; if it has not, this
        // does.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let json = match &self.key {
            Some(ServiceAccountKey::File(path)) => {
                let unreadable = |error| Fault::unsupported(format!("{}: {error}", path.display()));
                Some(tokio::fs::read_to_string(path).await.map_err(unreadable)?)
            }
            Some(ServiceAccountKey::Json(json)) => Some(json.clone()),
            None => None,
        };
        let headers = match json {
            Some(json) => {
                // serde's own words may quote what is in it.
                let key: Option<serde_json::Value> = serde_json::from_str(&json).ok();
                let key = key.filter(serde_json::Value::is_object).ok_or_else(|| {
                    Fault::unsupported(
                        "the service account's key is not JSON: is it the file that the console or gcloud wrote?",
                    )
                })?;
                GoogleAuthHeaders::from_service_account_key(key, GCP_DEFAULT_SCOPES.clone()).await
            }
            None => GoogleAuthHeaders::from_adc().await,
        };
        let headers = headers.map_err(|error| Fault::of_credentials(&error))?;
        Ok((Endpoint { url, is_emulator: false }, headers))
    }
}

/// The place, with the project that the environment names unless the URL does.
pub(crate) async fn partition(place: Place, is_emulator: bool) -> Result<PartitionId, Fault> {
    let named = || ["DATASTORE_PROJECT_ID", "GOOGLE_CLOUD_PROJECT"].into_iter().find_map(variable);
    let project = match place.project.or_else(named) {
        // An emulator takes any, and there is nobody to ask.
        None if !is_emulator => GoogleEnvironment::detect_google_project_id().await,
        project => project,
    };
    let unknown =
        "which project? name it in the URL, datastore://PROJECT, or in DATASTORE_PROJECT_ID";
    let project_id = project.ok_or_else(|| Fault::unsupported(unknown))?;
    Ok(PartitionId { project_id, database_id: place.database, namespace_id: place.namespace })
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
