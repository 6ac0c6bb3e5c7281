//! Templates of mails: built in for both languages, changed by a setting; `{{name}}` is all they can do.
//!
//! A built-in template is its text: the HTML is made of its paragraphs, and an address alone in one becomes
//! a button. A changed one may bring HTML of its own, in which values are escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use portico_base::FieldFault;
use portico_contract::settings::Settings;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Letter;
use crate::settings::mail::TEMPLATES;

/// Largest text of a template, in bytes.
const TEXT_MAX: usize = 20_000;
/// Longest subject, in bytes.
const SUBJECT_MAX: usize = 300;

/// Languages that every template has.
pub(crate) const LOCALES: [&str; 2] = ["en", "zh-CN"];

/// A mail as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// A template of one notice in one language; what is absent is the built-in one's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MailTemplate)]
pub(crate) struct Template {
    #[serde(default)]
    pub subject: Option<String>,
    /// Plain text; an empty line separates paragraphs.
    #[serde(default)]
    pub text: Option<String>,
    /// HTML; without it, it is made from the text.
    #[serde(default)]
    pub html: Option<String>,
}

type Names = BTreeMap<String, Template>;

static BUILT_IN: LazyLock<BTreeMap<&'static str, Names>> = LazyLock::new(|| {
    BTreeMap::from([
        ("en", parse(include_str!("../../assets/mail/en.txt"))),
        ("zh-CN", parse(include_str!("../../assets/mail/zh-CN.txt"))),
    ])
});

/// The mail of a letter, by the tenant's changed template where there is a usable one.
pub(crate) fn render(settings: &Settings, tenant: Uuid, letter: &Letter) -> Mail {
    let locale = locale_of(&letter.locale);
    let changed = changed(settings, tenant, &letter.template, locale);
    render_with(letter, &changed.unwrap_or_default())
}

/// The mail of a letter by a template that was not stored yet.
pub(crate) fn render_with(letter: &Letter, changed: &Template) -> Mail {
    let locale = locale_of(&letter.locale);
    let built_in = BUILT_IN[locale].get(&letter.template);
    let built_in = built_in.cloned().unwrap_or_default();
    let mut values = letter.values.clone();
    values.insert("hello".to_owned(), hello(locale, &letter.name));
    values.insert("name".to_owned(), letter.name.clone());
    let subject = changed.subject.as_ref().or(built_in.subject.as_ref());
    let text = changed.text.as_ref().or(built_in.text.as_ref());
    let (subject, text) = (
        subject.map_or("", String::as_str),
        text.map_or("", String::as_str),
    );
    let body = match &changed.html {
        Some(html) => fill(html, &values, escaped),
        None => page(locale, subject, text, &values),
    };
    Mail {
        // A line break would begin another header.
        subject: fill(subject, &values, |value| value.to_owned())
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        text: fill(text, &values, |value| value.to_owned()),
        html: body,
    }
}

/// What is wrong with a changed template, for a notice whose values are known.
pub(crate) fn faults(letter: &Letter, template: &Template) -> Vec<FieldFault> {
    let parts = [
        ("subject", &template.subject, SUBJECT_MAX),
        ("text", &template.text, TEXT_MAX),
        ("html", &template.html, TEXT_MAX),
    ];
    let mut faults = Vec::new();
    for (field, text, most) in parts {
        let Some(text) = text else { continue };
        if text.len() > most {
            let message = format!("at most {most} bytes");
            faults.push(FieldFault::new(field, "too_long", message));
        }
        for name in names_in(text) {
            if !["hello", "name"].contains(&name) && !letter.values.contains_key(name) {
                let message = format!("this notice has no value `{name}`");
                faults.push(FieldFault::new(field, "unknown_value", message));
            }
        }
    }
    faults
}

/// True when a notice has a template.
#[cfg(test)]
fn has(locale: &str, name: &str) -> bool {
    BUILT_IN[locale].contains_key(name)
}

/// `zh` in any form is Chinese, everything else English.
pub(crate) fn locale_of(locale: &str) -> &'static str {
    let chinese = locale
        .get(..2)
        .is_some_and(|word| word.eq_ignore_ascii_case("zh"));
    if chinese { "zh-CN" } else { "en" }
}

/// The tenant's template. One that does not read is passed over: a mail that must go out is not held up
/// by a wrong setting, which the preview shows.
fn changed(settings: &Settings, tenant: Uuid, name: &str, locale: &str) -> Option<Template> {
    let all = settings.get(tenant, &TEMPLATES);
    let one = all.get(name)?.get(locale)?;
    Template::deserialize(one)
        .inspect_err(|error| {
            tracing::warn!(template = name, locale, err = %error, "a changed mail template is not usable");
        })
        .ok()
}

fn hello(locale: &str, name: &str) -> String {
    match (locale, name) {
        ("zh-CN", "") => "您好：".to_owned(),
        ("zh-CN", name) => format!("{name}，您好："),
        (_, "") => "Hello,".to_owned(),
        (_, name) => format!("Hello {name},"),
    }
}

/// The HTML of a text: paragraphs, and a button for an address that stands alone.
fn page(locale: &str, subject: &str, text: &str, values: &BTreeMap<String, String>) -> String {
    let mut body = String::new();
    for paragraph in text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()) {
        let filled = fill(paragraph, values, escaped);
        let alone = matches!(names_in(paragraph).as_slice(), ["link" | "home"])
            && !paragraph.contains(char::is_whitespace);
        // Writing into a string cannot fail.
        let _ = if alone {
            writeln!(
                body,
                r#"<p style="margin:24px 0"><a href="{filled}">{filled}</a></p>"#
            )
        } else {
            writeln!(body, "<p>{}</p>", filled.replace('\n', "<br>"))
        };
    }
    let subject = fill(subject, values, escaped);
    format!(
        r#"<!doctype html>
<html lang="{locale}"><head><meta charset="utf-8"><title>{subject}</title></head>
<body style="margin:0;padding:24px;background:#f5f5f7;color:#1d1d1f;font:16px/1.5 sans-serif">
<div style="max-width:560px;margin:0 auto;padding:24px;background:#fff;border-radius:8px">
{body}</div></body></html>
"#
    )
}

/// Replaces `{{name}}` by its value; what has none stays away.
fn fill(
    template: &str,
    values: &BTreeMap<String, String>,
    write: impl Fn(&str) -> String,
) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once("}}") else {
            rest = after;
            break;
        };
        if let Some(value) = values.get(name.trim()) {
            out.push_str(&write(value));
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The names between braces.
fn names_in(template: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else {
            break;
        };
        names.push(name.trim());
        rest = behind;
    }
    names
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Reads `[name] Subject` and the text below it, again and again.
fn parse(file: &str) -> Names {
    let mut all = Names::new();
    let mut current: Option<(String, String)> = None;
    let mut text = String::new();
    let mut keep = |current: Option<(String, String)>, text: &mut String| {
        if let Some((name, subject)) = current {
            let template = Template {
                subject: Some(subject),
                text: Some(format!("{}\n", text.trim())),
                html: None,
            };
            all.insert(name, template);
        }
        text.clear();
    };
    for line in file.lines() {
        let head = line.strip_prefix('[').and_then(|l| l.split_once("] "));
        match head {
            Some((name, subject)) => {
                keep(current.take(), &mut text);
                current = Some((name.to_owned(), subject.to_owned()));
            }
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    keep(current, &mut text);
    all
}

#[cfg(test)]
mod tests {
    use portico_base::clock::from_unix_ms;

    use super::*;
    use crate::links::Links;
    use crate::notices::{Notice, Notices, Recipient};

    fn letter(notice: &Notice, locale: &str, name: &str) -> Letter {
        let to = Recipient {
            tenant: portico_base::id::TENANT_DEFAULT,
            email: "anna@example.com".to_owned(),
            name: name.to_owned(),
            locale: locale.to_owned(),
        };
        let notices = Notices::new(Links::fixed("https://id.example.com"));
        notices.letter(&to, notice, from_unix_ms(1_767_225_600_000))
    }

    #[test]
    fn every_notice_has_a_complete_template_in_both_languages() {
        for notice in Notice::samples(from_unix_ms(0)) {
            for locale in LOCALES {
                let letter = letter(&notice, locale, "Anna");
                assert!(has(locale, notice.template()), "{}", notice.template());
                let template = &BUILT_IN[locale][notice.template()];
                assert_eq!(faults(&letter, template), [], "{}", notice.template());
                let mail = render_with(&letter, &Template::default());
                assert!(!mail.subject.is_empty() && mail.text.contains("Anna"));
                assert!(!mail.text.contains("{{") && !mail.html.contains("{{"));
                // Whatever can be acted on by a link has it in both forms.
                if let Some(link) = letter.values.get("link") {
                    assert!(mail.text.contains(link) && mail.html.contains(link));
                    assert!(link.starts_with("https://id.example.com/auth/"));
                }
            }
        }
        let count = Notice::samples(from_unix_ms(0)).len();
        assert!(BUILT_IN.values().all(|names| names.len() == count));
    }

    #[test]
    fn names_are_escaped_in_html_and_empty_ones_read_well() {
        let letter = letter(&Notice::Test, "en", "O'Neil <b>");
        let mail = render_with(&letter, &Template::default());
        assert!(mail.text.starts_with("Hello O'Neil b,\n"));
        assert!(mail.html.contains("Hello O&#39;Neil b,"));
        let nobody = Letter {
            name: String::new(),
            ..letter
        };
        let mail = render_with(&nobody, &Template::default());
        assert!(mail.text.starts_with("Hello,\n"));
    }

    #[test]
    fn a_changed_template_is_checked_and_escaped() {
        let notice = Notice::KeyExpiring {
            key_id: "<k>".to_owned(),
            at: from_unix_ms(0),
        };
        let letter = letter(&notice, "zh-TW", "");
        let changed = Template {
            subject: Some("key {{key}}\r\nBcc: all@example.com".to_owned()),
            text: None,
            html: Some("<p>{{ key }} {{nothing}}</p>".to_owned()),
        };
        let mail = render_with(&letter, &changed);
        assert_eq!(mail.subject, "key <k> Bcc: all@example.com");
        assert_eq!(mail.html, "<p>&lt;k&gt; </p>");
        assert!(mail.text.contains("即将") || mail.text.contains("到期"));
        let found = faults(&letter, &changed);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&*found[0].field, &*found[0].code),
            ("html", "unknown_value")
        );
    }
}
