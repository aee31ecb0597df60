//! A time to wait, in words.

/// Returns a number of seconds in words, rounded up, such as `30 seconds` or `2 hours`.
pub(crate) fn in_words(seconds: u64) -> String {
    let (count, unit) = match seconds {
        ..=90 => (seconds, "second"),
        91..=5_400 => (seconds.div_ceil(60), "minute"),
        5_401..=129_600 => (seconds.div_ceil(3_600), "hour"),
        _ => (seconds.div_ceil(86_400), "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_said_in_words() {
        for (seconds, expected) in [
            (1, "1 second"),
            (30, "30 seconds"),
            (91, "2 minutes"),
            (3_600, "60 minutes"),
            (5_401, "2 hours"),
            (604_800, "7 days"),
        ] {
            assert_eq!(in_words(seconds), expected);
        }
    }
}
