//! What a password must be (ID-43): long enough, not common, not near to what is known about its owner, not easily guessed.

use portico_base::FieldFault;
use zxcvbn::zxcvbn;

use super::common_list;

/// Longest password, in characters.
const MAX_LENGTH: usize = 256;
/// Shorter words are part of too many good passwords.
const MIN_WORD: usize = 4;
/// What stands besides a near word may not be shorter than this.
const MIN_REST: usize = 4;
/// Name of the product, which people like to put into its passwords.
const PRODUCT: &str = "portico";

/// The rules for one user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// In characters.
    pub min_length: usize,
    /// 0 to 4.
    pub min_score: u8,
}

/// Words that are known about the owner: a password near to them is guessed first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(Vec<String>);

impl Known {
    /// Only the product's name so far.
    pub(crate) fn new() -> Self {
        Self(vec![PRODUCT.to_owned()])
    }

    /// A name of the user or the tenant: as a whole and each of its words.
    pub(crate) fn name(mut self, name: Option<&str>) -> Self {
        let name = name.unwrap_or_default();
        self.add(name);
        for word in name.split(|c: char| !c.is_alphanumeric()) {
            self.add(word);
        }
        self
    }

    /// An address: whole, its user, and its domain without the ending.
    pub(crate) fn email(mut self, address: Option<&str>) -> Self {
        let address = address.unwrap_or_default();
        self.add(address);
        if let Some((local, domain)) = address.split_once('@') {
            self.add(local);
            self.add(domain.rsplit_once('.').map_or(domain, |(name, _)| name));
        }
        self
    }

    /// A number in E.164: whole, and without the country's code, which has one to three digits.
    pub(crate) fn phone(mut self, number: Option<&str>) -> Self {
        let digits = number.unwrap_or_default().trim_start_matches('+');
        for code in 0..=3 {
            self.add(digits.get(code..).unwrap_or_default());
        }
        self
    }

    fn add(&mut self, word: &str) {
        let word = plain(word);
        if word.chars().count() >= MIN_WORD && !self.0.contains(&word) {
            self.0.push(word);
        }
    }
}

/// All faults of a password in NFKC; none means that it is good. Costs milliseconds.
pub(crate) fn check(field: &str, password: &str, rules: Rules, known: &Known) -> Vec<FieldFault> {
    let length = password.chars().count();
    let fault = |code: &str, message: String| FieldFault::new(field, code, message);
    if length > MAX_LENGTH {
        // The other rules are not asked: their cost rises with the length.
        let message = format!("has {length} characters, at most {MAX_LENGTH} are possible");
        return vec![fault("password_too_long", message)];
    }
    let mut faults = Vec::new();
    if length < rules.min_length {
        let message = format!("needs at least {} characters", rules.min_length);
        faults.push(fault("password_too_short", message));
    }
    if common_list::contains(password) {
        let message = "is one of the passwords that attackers try first".to_owned();
        faults.push(fault("password_common", message));
    }
    if is_near(password, known) {
        let message = "is too near to a name, an address or a number of yours".to_owned();
        faults.push(fault("password_too_similar", message));
    }
    if faults.is_empty() {
        let words: Vec<&str> = known.0.iter().map(String::as_str).collect();
        let score = zxcvbn(password, &words).score() as u8;
        if score < rules.min_score {
            let message = "can be guessed too easily".to_owned();
            faults.push(fault("password_too_weak", message));
        }
    }
    faults
}

/// A known word, forwards or backwards, once or again, with little besides it or with two typing errors.
fn is_near(password: &str, known: &Known) -> bool {
    let password = plain(password);
    let backwards: String = password.chars().rev().collect();
    known.0.iter().any(|word| {
        let bare = |text: &str| {
            let rest = text.replace(word.as_str(), "");
            rest.len() < text.len() && rest.chars().count() < MIN_REST
        };
        let typo = word.chars().count() >= 6 && strsim::levenshtein(&password, word) <= 2;
        bare(&password) || bare(&backwards) || typo
    })
}

/// Letters and digits in lower case.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        min_length: 8,
        min_score: 2,
    };

    fn codes(password: &str, rules: Rules) -> Vec<String> {
        let known = Known::new()
            .name(Some("Xiao Ming"))
            .name(Some("default"))
            .email(Some("ming.wang@example-shop.com"))
            .phone(Some("+8613812345678"));
        check("password", password, rules, &known)
            .into_iter()
            .map(|f| f.code)
            .collect()
    }

    #[test]
    fn each_rule_is_named() {
        for (password, wanted) in [
            ("correct horse battery", &[][..]),
            ("天地玄黄宇宙洪荒日月", &[]),
            ("Tr0ub4dour&3xyz", &[]),
            ("kF7#q", &["password_too_short"]),
            ("password1", &["password_common"]),
            ("123456", &["password_too_short"]),
            ("ming.wang", &["password_too_similar"]),
            ("ming.wang@example-shop.com", &["password_too_similar"]),
            ("gnaw.gnim", &["password_too_similar"]),
            ("XiaoMing!1", &["password_too_similar"]),
            ("xiaom1ng", &["password_too_similar"]),
            ("13812345678", &["password_too_similar"]),
            ("+8613812345678", &["password_too_similar"]),
            ("Portico!23", &["password_too_similar"]),
            ("exampleshop", &["password_too_similar"]),
            ("default1", &["password_too_similar"]),
            ("ming-ming-ming", &["password_too_similar"]),
            ("aaaaaaaaaaaa", &["password_too_weak"]),
            ("abcdefghijk", &["password_too_weak"]),
        ] {
            assert_eq!(codes(password, RULES), wanted, "{password}");
        }
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let admin = Rules {
            min_length: 10,
            ..RULES
        };
        assert_eq!(codes("kF7#q!zW9", admin), ["password_too_short"]);
        assert!(codes("kF7#q!zW9u", admin).is_empty());
        assert_eq!(codes(&"é".repeat(257), RULES), ["password_too_long"]);
        let long: String = ('a'..='z').cycle().step_by(7).take(256).collect();
        assert!(codes(&long, RULES).is_empty());
    }

    #[test]
    fn words_that_are_too_short_forbid_nothing() {
        let known = Known::new().name(Some("Li")).email(None).phone(None);
        assert!(check("p", "li-kF7#q!zW9", RULES, &known).is_empty());
    }
}
