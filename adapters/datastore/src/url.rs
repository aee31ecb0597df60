//! Parses the URL of a store, and the addresses of the service.

use crate::error::Error;

/// The parts of a store's URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreUrl {
    /// `None` if the environment names it.
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
                // Google's name for the default database, whose id is empty.
                Some(("database", "(default)")) => {}
                Some(("database", database)) => url.database = database.to_owned(),
                _ => return Err(invalid_url()),
            }
        }
        // The id of a legacy project contains the domain of its organisation:
        // `example.com:project`.
        let is_valid = is_id(url.project.as_deref().unwrap_or_default(), ".:")
            && is_id(&url.namespace, ".")
            && is_id(&url.database, "");
        is_valid.then_some(url).ok_or_else(invalid_url)
    }
}

/// Checks whether an id consists of letters, digits, `-`, `_` and these other characters.
fn is_id(id: &str, others: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c) || others.contains(c);
    id.len() <= 100 && id.chars().all(is_allowed)
}

/// The address of Google's service.
pub(crate) const GOOGLE: &str = "https://datastore.googleapis.com";

fn invalid_url() -> Error {
    Error::unsupported(
        "the URL is not datastore://PROJECT/NAMESPACE?database=DATABASE, where each part may be left \
         out; ids consist of letters, digits, - and _, and a namespace may also have full stops",
    )
}

/// Checks the address of a service: it has to use TLS, or be on this machine.
pub(crate) fn checked_endpoint(text: &str) -> Result<String, Error> {
    let without = text.strip_prefix("http://");
    if let Some(authority) = without {
        let port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let host = match authority.rsplit_once(':') {
            Some((host, number)) if port(number) => host,
            _ => authority,
        };
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if !is_here {
            let words = "an endpoint without TLS would show tokens to the network: https://…";
            return Err(Error::unsupported(words));
        }
    } else if !text.starts_with("https://") {
        return Err(Error::unsupported("an endpoint is https://HOST, or http://localhost:PORT"));
    }
    Ok(text.to_owned())
}

/// Returns the URL of an emulator, from the form that its variable has.
pub(crate) fn emulator_url(host: &str) -> String {
    let host = host.trim_end_matches('/');
    let host = host.strip_prefix("http://").unwrap_or(host);
    // The address of all interfaces is only for listening.
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
    fn a_url_says_where_the_data_is() {
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
    fn tokens_go_to_this_machine_or_by_tls() {
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
