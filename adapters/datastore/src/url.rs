//! Parses the URL of a store, and the addresses of the service.

use crate::error::Error;

/// The parts of a store's URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreUrl {
    /// `None` if the URL names no project.
    pub(crate) project: Option<String>,
    pub(crate) database: String,
    pub(crate) namespace: String,
}

impl StoreUrl {
    /// Parses `datastore://PROJECT/NAMESPACE?database=DATABASE`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("datastore://").ok_or_else(invalid_url)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (project, namespace) = rest.split_once('/').unwrap_or((rest, ""));
        let mut url = Self {
            project: Some(project.to_owned()).filter(|project| !project.is_empty()),
            namespace: namespace.to_owned(),
            database: String::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                // Google's tools call the default database `(default)`. Its id in the API is empty.
                Some(("database", "(default)")) => {}
                Some(("database", database)) => url.database = database.to_owned(),
                _ => return Err(invalid_url()),
            }
        }
        // The id of an old project may begin with a domain: `example.com:project`.
        let is_valid = is_valid_id(url.project.as_deref().unwrap_or_default(), ".:")
            && is_valid_id(&url.namespace, ".")
            && is_valid_id(&url.database, "");
        is_valid.then_some(url).ok_or_else(invalid_url)
    }
}

/// Checks whether an id consists of letters, digits, `-`, `_` and the characters in `more_allowed`.
/// An empty id is valid here.
fn is_valid_id(id: &str, more_allowed: &str) -> bool {
    let is_allowed =
        |c: char| c.is_ascii_alphanumeric() || "-_".contains(c) || more_allowed.contains(c);
    id.len() <= 100 && id.chars().all(is_allowed)
}

/// The address of Google's service.
pub(crate) const GOOGLE: &str = "https://datastore.googleapis.com";

fn invalid_url() -> Error {
    Error::unsupported(
        "the URL of the store is invalid: use datastore://PROJECT/NAMESPACE?database=DATABASE; \
         each part may be left out, ids consist of letters, digits, - and _, and a namespace may \
         also have full stops",
    )
}

/// Returns the address of a service if it uses TLS or is on this machine. Otherwise returns an
/// error.
pub(crate) fn checked_endpoint(text: &str) -> Result<String, Error> {
    if let Some(authority) = text.strip_prefix("http://") {
        let is_port =
            |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if is_port(port) => host,
            _ => authority,
        };
        let is_on_this_machine = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if !is_on_this_machine {
            let message = "the endpoint does not use TLS, so tokens could be read on the network: \
                           use https://HOST";
            return Err(Error::unsupported(message));
        }
    } else if !text.starts_with("https://") {
        return Err(Error::unsupported(
            "the endpoint is not an address: use https://HOST, or http://localhost:PORT",
        ));
    }
    Ok(text.to_owned())
}

/// Returns the URL of an emulator from its address in `DATASTORE_EMULATOR_HOST`, usually
/// `HOST:PORT`.
pub(crate) fn emulator_url(host: &str) -> String {
    let host = host.trim_end_matches('/');
    let host = host.strip_prefix("http://").unwrap_or(host);
    // An emulator may listen on all interfaces, but no client can connect to that address.
    match host.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("http://127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("http://[::1]:{port}"),
        _ => format!("http://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_parsed_to_project_namespace_and_database() {
        let url = |project: Option<&str>, namespace: &str, database: &str| StoreUrl {
            project: project.map(str::to_owned),
            namespace: namespace.to_owned(),
            database: database.to_owned(),
        };
        for (url, expected) in [
            ("datastore://", url(None, "", "")),
            ("datastore:///tenant", url(None, "tenant", "")),
            ("datastore://shop-1", url(Some("shop-1"), "", "")),
            ("datastore://shop-1/", url(Some("shop-1"), "", "")),
            ("datastore://shop-1/tenant.7", url(Some("shop-1"), "tenant.7", "")),
            (
                "datastore://example.com:shop/t?database=users",
                url(Some("example.com:shop"), "t", "users"),
            ),
            ("datastore://shop-1?database=(default)", url(Some("shop-1"), "", "")),
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap(), expected, "{url}");
        }
        for bad in [
            "",
            "shop-1",
            "firestore://shop-1",
            "datastore://a b",
            "datastore://a/b/c",
            "datastore://a?x=1",
            "datastore://a?database=a.b",
        ] {
            assert!(StoreUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_uses_tls_or_is_on_this_machine() {
        for good in [
            "https://eu-datastore.googleapis.com",
            "http://localhost:8081",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ] {
            assert_eq!(checked_endpoint(good).unwrap(), good);
        }
        for bad in [
            "http://10.0.0.7:8081",
            "http://localhost.example.com",
            "http://localhost:1@example.com",
            "datastore.googleapis.com",
            "",
        ] {
            assert!(checked_endpoint(bad).is_err(), "{bad}");
        }
        for (host, url) in [
            ("localhost:8081", "http://localhost:8081"),
            ("http://localhost:8081/", "http://localhost:8081"),
            ("0.0.0.0:8081", "http://127.0.0.1:8081"),
            ("[::]:8081", "http://[::1]:8081"),
        ] {
            assert_eq!(emulator_url(host), url);
        }
    }
}
