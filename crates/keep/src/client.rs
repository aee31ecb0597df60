//! The client: its address, and the comparison of clients for session protection.

use std::net::{IpAddr, Ipv6Addr};

use http::header::HeaderName;
use http::{Extensions, HeaderMap, HeaderValue};
use ipnet::IpNet;

pub use crate::client_kind::ClientKind;

/// The address of the connection's peer, as an extension of the request.
///
/// Behind proxies, the peer is the last proxy. If the layer trusts that proxy, it reads the
/// client's address from `X-Forwarded-For`.
///
/// With axum, serve with `into_make_service_with_connect_info::<SocketAddr>()` and enable this
/// crate's feature `axum`; in this case the extension is not needed. With other servers, insert it
/// where the connection is accepted:
///
/// ```
/// use tower_keep::client::ClientAddr;
///
/// # let peer: std::net::SocketAddr = "192.0.2.1:50000".parse().unwrap();
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(ClientAddr(peer.ip()));
/// ```
///
/// tonic's own server puts a `TcpConnectInfo` into each request, or a `TlsConnectInfo` with TLS.
/// Put a `tower::util::MapRequestLayer` around the login layer that copies its address; the crate's
/// docs [show it](crate#grpc).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub IpAddr);

/// What happens to a session if it is used by a client other than the client that logged in.
///
/// A copied cookie usually comes from another address and another browser. The cookie holds a keyed
/// digest of the client; see [`ClientMatch`] for what goes into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionProtection {
    /// Nothing happens.
    None,
    /// The login stays but is no longer *fresh*: pages that need a fresh login ask the user to
    /// confirm it. This is the default, as in Flask-Login, because users change networks all day
    /// long.
    #[default]
    Basic,
    /// The session and its remember cookie end. For a [persistent] session this is the same as
    /// `Basic`, as in Flask-Login.
    ///
    /// [persistent]: crate::LoginLayerBuilder::with_persistent_session
    Strong,
}

/// Whether two requests count as requests of the same client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientMatch {
    /// The address and the `User-Agent` are the same, byte for byte. This is the default, as in
    /// Flask-Login.
    #[default]
    Exact,
    /// The network (/24 for IPv4, /64 for IPv6) and the `User-Agent` without its version numbers
    /// are the same. So a client with an updated browser, or with a new address in the same
    /// network, is the same client.
    Tolerant,
}

/// Finds the client's address behind reverse proxies.
///
/// `X-Forwarded-For` counts only if the connection comes from one of these networks. The header is
/// read from its end: the last address that does not belong to a trusted proxy is the client's.
/// Entries that a client sends come before that address and have no effect.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(pub(crate) Vec<IpNet>);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl TrustedProxies {
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the client's address, given the address of the connection's peer.
    pub(crate) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.map(|peer| peer.to_canonical())?;
        if !self.trusts(client) {
            return Some(client);
        }
        for field in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for entry in field.to_str().unwrap_or_default().rsplit(',') {
                // An entry that is not an address ends the search, because the entries before it
                // can't be trusted.
                let Some(address) = forwarded_address(entry) else { return Some(client) };
                client = address;
                if !self.trusts(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }
}

/// Parses an address in the forms that proxies write: bare, with a port, or in brackets.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = || entry.parse::<IpAddr>().ok();
    let with_port = || entry.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || {
        let inner = entry.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    bare().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

/// Checks whether an address is not of the public internet: of this machine, of a private network
/// (RFC 1918, RFC 4193), of a carrier's shared network (RFC 6598), or of one link.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || is_shared
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

/// Returns the bytes by which a limit counts an address: an address of IPv4, or the first 64 bits
/// of an address of IPv6, because a client can choose the rest.
pub(crate) fn limited_bytes(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => match v6.octets() {
            // A translated address of IPv4 (NAT64, RFC 6052 §2.1).
            [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, v4 @ ..] => v4.to_vec(),
            octets => octets[..8].to_vec(),
        },
    }
}

/// Returns the address of the connection's peer, as the server has inserted it.
pub(crate) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    if let Some(ClientAddr(address)) = extensions.get() {
        return Some(*address);
    }
    #[cfg(feature = "axum")]
    if let Some(info) = extensions.get::<axum::extract::ConnectInfo<std::net::SocketAddr>>() {
        return Some(info.0.ip());
    }
    None
}

/// Passes the bytes that identify a client to `digest`, in two parts, and returns its result.
///
/// The first part is sixteen bytes of the address, and one byte that says whether the address is
/// known. The second part is the user agent. The first part always has the same length, so two
/// clients never have the same bytes when the parts are joined.
pub(crate) fn identify<T>(
    matching: ClientMatch,
    address: Option<IpAddr>,
    user_agent: Option<&HeaderValue>,
    digest: impl FnOnce([&[u8]; 2]) -> T,
) -> T {
    let bits = match address.map(|address| address.to_canonical()) {
        None => 0,
        Some(IpAddr::V4(v4)) => u128::from(v4.to_ipv6_mapped()) & !ignored_bits(matching, 8),
        Some(IpAddr::V6(v6)) => u128::from(v6) & !ignored_bits(matching, 64),
    };
    let mut address_part = [0; 17];
    address_part[..16].copy_from_slice(&bits.to_be_bytes());
    address_part[16] = address.is_some().into();
    let user_agent = user_agent.map_or(&b""[..], HeaderValue::as_bytes);
    match matching {
        ClientMatch::Exact => digest([&address_part, user_agent]),
        ClientMatch::Tolerant => {
            let is_version = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'_');
            let without_version: Vec<u8> =
                user_agent.iter().copied().filter(|byte| !is_version(byte)).collect();
            digest([&address_part, &without_version])
        }
    }
}

/// Returns a mask of the low bits of an address that the match ignores: `bits` bits if the match is
/// tolerant, and no bits if it is exact.
fn ignored_bits(matching: ClientMatch, bits: u32) -> u128 {
    match matching {
        ClientMatch::Exact => 0,
        ClientMatch::Tolerant => (1 << bits) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn forwarded_headers_count_only_from_trusted_proxies() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let proxies = TrustedProxies(trusted.to_vec());
        for (peer, forwarded, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.1, 10.2.2.2"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ] {
            let mut headers = HeaderMap::new();
            for field in forwarded {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(field));
            }
            let client = proxies.client(Some(ip(peer)), &headers);
            assert_eq!(client, Some(ip(expected)), "{peer} {forwarded:?}");
        }
        assert_eq!(proxies.client(None, &HeaderMap::new()), None);
    }

    #[test]
    fn clients_are_compared_by_address_and_user_agent() {
        let identity = |matching, address: &str, agent: &'static str| {
            let agent = HeaderValue::from_static(agent);
            identify(matching, address.parse().ok(), Some(&agent), |parts| parts.concat())
        };
        use ClientMatch::{Exact, Tolerant};
        for (one, other, exact, tolerant) in [
            (("192.0.2.1", "A/1.0"), ("192.0.2.1", "A/1.0"), true, true),
            (("192.0.2.1", "A/1.0"), ("::ffff:192.0.2.1", "A/1.0"), true, true),
            (("192.0.2.1", "A/1.0"), ("192.0.2.9", "A/1.0"), false, true),
            (("192.0.2.1", "A/1.0"), ("192.0.3.1", "A/1.0"), false, false),
            (("192.0.2.1", "A/1.0"), ("192.0.2.1", "A/1.12.3"), false, true),
            (("192.0.2.1", "A/1.0"), ("192.0.2.1", "B/1.0"), false, false),
            (("2001:db8::1", "A"), ("2001:db8::2", "A"), false, true),
            (("2001:db8::1", "A"), ("2001:db8:0:1::1", "A"), false, false),
            (("unknown", "A"), ("unknown", "A"), true, true),
            (("unknown", "A"), ("192.0.2.1", "A"), false, false),
        ] {
            let same =
                |matching| identity(matching, one.0, one.1) == identity(matching, other.0, other.1);
            assert_eq!((same(Exact), same(Tolerant)), (exact, tolerant), "{one:?} {other:?}");
        }
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_not_private() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("192.168.0.1", true),
            ("169.254.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("0.0.0.0", true),
            ("203.0.113.9", false),
            ("::ffff:10.0.0.1", true),
            ("::1", true),
            ("::", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(ip(address)), expected, "{address}");
        }
    }

    #[test]
    fn a_limit_counts_a_network_of_ipv6_as_one_address() {
        let same = |one: &str, other: &str| limited_bytes(ip(one)) == limited_bytes(ip(other));
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "64:ff9b::192.0.2.1"));
        assert!(!same("192.0.2.1", "64:ff9b::192.0.2.2"));
    }
}
