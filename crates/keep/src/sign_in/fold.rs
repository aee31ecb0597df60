//! The form of a login name in which attempts are counted.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Folds a login name: without the marks of letters, in lower case, and without spaces at the ends.
///
/// A database may take several spellings for one name. If they were counted separately, each
/// spelling would allow more attempts. So this makes at least the names equal that the usual
/// collations do. Names of different users may become equal, too; then they share a limit.
pub(super) fn fold(login_name: &str) -> String {
    let letters = login_name.trim().nfkd().filter(|c| !is_combining_mark(*c) && !is_invisible(*c));
    let folded: String = letters.flat_map(char::to_lowercase).collect();
    // Some letters have another form in lower case only after they were upper case, such as `ß`.
    let folded = folded.to_uppercase().to_lowercase();
    folded.nfkd().filter(|c| !is_combining_mark(*c)).collect::<String>().trim().to_owned()
}

/// Checks whether a character is one that collations ignore: it has no width, or only directs the
/// text around it (Unicode's `Default_Ignorable_Code_Point`, without tags).
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}'
    )
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
            ("a\u{ad}d\u{200b}a", "ada", true),
            ("ΟΔΟΣ", "οδος", true),
            ("ada", "adam", false),
            ("佐藤", "佐籐", false),
            ("a b", "ab", false),
        ] {
            assert_eq!(fold(one) == fold(other), is_same, "{one} {other}");
        }
    }
}
