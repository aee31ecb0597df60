//! The form of a login name in which attempts are counted.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Folds a login name: without the marks of letters, in lower case, and without spaces at the ends.
///
/// A database may take several spellings for one name. If they were counted separately, each
/// spelling would allow more attempts. So this makes at least the names equal that the usual
/// collations do. Names of different users may become equal, too; then they share a limit.
pub(super) fn fold(login_name: &str) -> String {
    let letters = login_name.trim().nfkd().filter(|c| !is_combining_mark(*c));
    let folded: String = letters.flat_map(char::to_lowercase).collect();
    // Some letters have another form in lower case only after they were upper case, such as `ß`.
    let folded = folded.to_uppercase().to_lowercase();
    folded.nfkd().filter(|c| !is_combining_mark(*c)).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_folded_to_the_same_text() {
        for (one, other, is_same) in [
            ("ada", "ADA", true),
            ("ada", " ada ", true),
            ("ada", "ａｄａ", true),
            ("jose\u{301}", "josé", true),
            ("jose", "JOSÉ", true),
            ("straße", "STRASSE", true),
            ("İstanbul", "istanbul", true),
            ("ﬁ", "fi", true),
            ("ΟΔΟΣ", "οδος", true),
            ("ada", "adam", false),
            ("佐藤", "佐籐", false),
            ("a b", "ab", false),
        ] {
            assert_eq!(fold(one) == fold(other), is_same, "{one} {other}");
        }
    }
}
