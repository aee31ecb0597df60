//! A short description of a device, for the list of a user's sessions.

use crate::flash::cut;

/// Of an unknown `User-Agent`, at most this many bytes are shown.
const MAX_UNKNOWN_BYTES: usize = 40;

/// Returns the browser and the system that the `User-Agent` names, such as `Firefox on Linux`.
///
/// Users only need to recognize their own devices, so the common browsers and systems are enough.
/// The `User-Agent` of a browser also contains words of other browsers: Edge also says `Chrome` and
/// `Safari`. So in the list, the word of each browser comes before the words that this browser
/// copies.
pub(crate) fn device_of(user_agent: &str) -> String {
    const BROWSERS: [(&str, &str); 10] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Vivaldi/", "Vivaldi"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    const SYSTEMS: [(&str, &str); 8] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
        ("X11", "Linux"),
    ];
    let find_name = |names: &[(&str, &'static str)]| {
        names.iter().find(|(word, _)| user_agent.contains(word)).map(|(_, name)| *name)
    };
    match (find_name(&BROWSERS), find_name(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => {
            let product = user_agent.split([' ', '/', '(']).find(|word| !word.is_empty());
            product.map_or("Unknown device", |product| cut(product, MAX_UNKNOWN_BYTES)).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_devices_are_described_by_browser_and_system() {
        let webkit = "AppleWebKit/537.36 (KHTML, like Gecko)";
        for (user_agent, expected) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
                "Firefox on Linux",
            ),
            (
                &format!(
                    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/142.0.0.0 Safari/537.36"
                ),
                "Chrome on Windows",
            ),
            (
                &format!(
                    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/142.0.0.0 Safari/537.36 Edg/142.0"
                ),
                "Edge on Windows",
            ),
            (
                &format!(
                    "Mozilla/5.0 (Linux; Android 15; SM-S921B) {webkit} SamsungBrowser/28.0 Chrome/130.0 Mobile Safari/537.36"
                ),
                "Samsung Internet on Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
                "Safari on macOS",
            ),
            ("curl/8.5.0", "curl"),
            ("Test/1.0", "Test"),
            ("my-app", "my-app"),
            ("", "Unknown device"),
            (" / (", "Unknown device"),
            (&"x".repeat(100), &"x".repeat(40)),
            (&"é".repeat(100), &"é".repeat(20)),
        ] {
            assert_eq!(device_of(user_agent), expected);
        }
    }
}
