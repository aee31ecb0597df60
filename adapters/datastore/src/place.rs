//! Parses the URL of a store, and the addresses of the service.

use crate::error::Error;

/// The parts of a store's URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// `None` if the environment names it.
    pub(crate) project: Option<String>,
    pub(crate) database: String,
    pub(crate) namespace: String,
}

/// The address of Google's service.
pub(crate) const GOOGLE: &str = "https://datastore.googleapis.com";

/// Reads `datastore://PROJECT/NAMESPACE?database=DATABASE`.
pub(crate) fn read(url: &str) -> Result<Place, Error> {
    let rest = url.strip_prefix("datastore://").ok_or_else(unknown)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (project, namespace) = rest.split_once('/').unwrap_or((rest, ""));
    let mut place = Place {
        project: Some(project.to_owned()).filter(|project| !project.is_empty()),
        namespace: namespace.to_owned(),
        database: String::new(),
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            // Google's name for the default database, whose id is empty.
            Some(("database", "(default)")) => {}
            Some(("database", database)) => place.database = database.to_owned(),
            _ => return Err(unknown()),
        }
    }
    // The id of a legacy project contains the domain of its organisation: `example.com:project`.
    let is_id = |id: &str, extra: &str| {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c) || extra.contains(c);
        id.len() <= 100 && id.chars().all(is_known)
    };
    let is_known = is_id(place.project.as_deref().unwrap_or_default(), ".:")
        && is_id(&place.namespace, ".")
        && is_id(&place.database, "");
    is_known.then_some(place).ok_or_else(unknown)
}

fn unknown() -> Error {
    Error::unsupported(
        "the URL is not datastore://PROJECT/NAMESPACE?database=DATABASE, of which all may be left away; \
         ids are made of letters, digits, - and _, namespaces of . besides",
    )
}

/// Checks the address of a service: it has to use TLS, or be on this machine.
pub(crate) fn endpoint(text: &str) -> Result<String, Error> {
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
pub(crate) fn emulator(host: &str) -> String {
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
        let place = |project: Option<&str>, namespace: &str, database: &str| Place {
            project: project.map(str::to_owned),
            namespace: namespace.to_owned(),
            database: database.to_owned(),
        };
        for (url, expected) in [
            ("datastore://", place(None, "", "")),
            ("datastore:///tenant", place(None, "tenant", "")),
            ("datastore://shop-1", place(Some("shop-1"), "", "")),
            ("datastore://shop-1/", place(Some("shop-1"), "", "")),
            ("datastore://shop-1/tenant.7", place(Some("shop-1"), "tenant.7", "")),
            (
                "datastore://example.com:shop/t?database=users",
                place(Some("example.com:shop"), "t", "users"),
            ),
            ("datastore://shop-1?database=(default)", place(Some("shop-1"), "", "")),
        ] {
            assert_eq!(read(url).unwrap(), expected, "{url}");
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
            assert!(read(bad).is_err(), "{bad}");
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
            assert_eq!(endpoint(good).unwrap(), good);
        }
        for bad in [
            "http://10.0.0.7:8081",
            "http://localhost.example.com",
            "http://localhost:1@example.com",
            "datastore.googleapis.com",
            "",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        for (host, url) in [
            ("localhost:8081", "http://localhost:8081"),
            ("http://localhost:8081/", "http://localhost:8081"),
            ("0.0.0.0:8081", "http://127.0.0.1:8081"),
            ("[::]:8081", "http://[::1]:8081"),
        ] {
            assert_eq!(emulator(host), url);
        }
    }
}
