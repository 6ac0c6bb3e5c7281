//! What an answer means: one table for each vendor, in the order in which its rows are tried.

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The vendor took the message.
    Sent,
    /// Our account or the vendor is broken and the phone was not touched: the next one, and a count for the breaker.
    Next,
    /// The same because of our configuration: somebody must be told.
    NextAlert,
    /// The number is bad, flooded, opted out or fraudulent: tell the caller, never ask another vendor.
    Stop,
    /// The same for an error that nobody knows: somebody must be told.
    StopAlert,
    /// Bytes left and no answer came: perhaps delivered, at most one more attempt with the same code.
    Ambiguous,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Sent,
        Self::Next,
        Self::NextAlert,
        Self::Stop,
        Self::StopAlert,
        Self::Ambiguous,
    ];

    /// As records and metrics write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Next => "next",
            Self::NextAlert => "next_alert",
            Self::Stop => "stop",
            Self::StopAlert => "stop_alert",
            Self::Ambiguous => "ambiguous",
        }
    }

    /// True when an administrator must look at it.
    #[must_use]
    pub const fn alerts(self) -> bool {
        matches!(self, Self::NextAlert | Self::StopAlert)
    }
}

/// A vendor's codes. A trailing `*` stands for any rest; `.*` for the code itself and everything below it.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Name of the provider.
    pub provider: &'static str,
    /// The first row that fits decides.
    pub rows: &'static [(&'static str, Class)],
}

/// All tables, for the console and the tests.
pub const TABLES: [Table; 3] = [ALIYUN, TENCENT, TWILIO];

use Class::{Ambiguous, Next, NextAlert, Stop};

/// Aliyun Dysms.
pub const ALIYUN: Table = Table {
    provider: "aliyun",
    rows: &[
        ("isv.OUT_OF_SERVICE", Next),
        ("isv.AMOUNT_NOT_ENOUGH", Next),
        ("isv.PRODUCT_UN_SUBSCRIPT", Next),
        ("isv.ACCOUNT_ABNORMAL", Next),
        ("isp.SYSTEM_ERROR", Next),
        ("isp.GATEWAY_ERROR", Next),
        ("isv.NOT_SUPPORTED_COUNTRY", Next),
        ("Throttling.*", Next),
        ("SignatureDoesNotMatch", NextAlert),
        ("InvalidAccessKeyId.*", NextAlert),
        ("isp.RAM_PERMISSION_DENY", NextAlert),
        ("isv.SMS_TEMPLATE_ILLEGAL", NextAlert),
        ("isv.SMS_SIGNATURE_ILLEGAL", NextAlert),
        ("isv.TEMPLATE_MISSING_PARAMETERS", NextAlert),
        ("isv.INVALID_JSON_PARAM", NextAlert),
        ("isv.MOBILE_NUMBER_ILLEGAL", Stop),
        ("isv.BUSINESS_LIMIT_CONTROL", Stop),
        ("isv.BLACK_KEY_CONTROL_LIMIT", Stop),
    ],
};

/// Tencent Cloud SMS; two of its codes are spelled wrongly by the vendor.
pub const TENCENT: Table = Table {
    provider: "tencent",
    rows: &[
        ("FailedOperation.InsufficientBalanceInSmsPackage", Next),
        ("UnauthorizedOperation.SerivceSuspendDueToArrears", Next),
        ("UnauthorizedOperation.SdkAppIdIsDisabled", Next),
        ("LimitExceeded.AppDailyLimit", Next),
        ("LimitExceeded.DailyLimit", Next),
        ("RequestLimitExceeded*", Next),
        ("UnsupportedOperation.UnsuportedRegion", Next),
        ("InternalError.SendAndRecvFail", Ambiguous),
        ("InternalError.Timeout", Ambiguous),
        ("InternalError.*", Next),
        ("AuthFailure.*", NextAlert),
        ("FailedOperation.SignatureIncorrectOrUnapproved", NextAlert),
        ("FailedOperation.TemplateIncorrectOrUnapproved", NextAlert),
        (
            "InvalidParameterValue.TemplateParameterFormatError",
            NextAlert,
        ),
        ("UnauthorizedOperation.*", NextAlert),
        ("InvalidParameterValue.IncorrectPhoneNumber", Stop),
        ("LimitExceeded.PhoneNumber*", Stop),
        ("LimitExceeded.DeliveryFrequencyLimit", Stop),
        ("FailedOperation.PhoneNumberInBlacklist", Stop),
        ("FailedOperation.PhoneNumberOnBlacklist", Stop),
        ("FailedOperation.ContainSensitiveWord", Stop),
    ],
};

/// Twilio Programmable Messaging.
pub const TWILIO: Table = Table {
    provider: "twilio",
    rows: &[
        ("20429", Next),
        ("21408", Next),
        ("21612", Next),
        ("30001", Next),
        ("10001", NextAlert),
        ("20003", NextAlert),
        ("21606", NextAlert),
        ("21211", Stop),
        ("21610", Stop),
        ("21614", Stop),
        ("30450", Stop),
        ("60203", Stop),
        ("60410", Stop),
        ("60605", Stop),
    ],
};

impl Table {
    /// The class of a code; nothing when no row knows it.
    #[must_use]
    pub fn class(&self, code: &str) -> Option<Class> {
        self.rows
            .iter()
            .find(|(pattern, _)| fits(pattern, code))
            .map(|(_, class)| *class)
    }

    /// The class of a code, or of the status when no row knows the code: an unknown fault of the vendor
    /// goes on, an unknown refusal stops and is told (the vendors advise against knowing every code).
    #[must_use]
    pub fn class_or(&self, code: &str, status: u16) -> Class {
        self.class(code).unwrap_or(match status {
            500.. => Next,
            // Nobody answers messages with a redirect: the address is wrong.
            300..=399 => NextAlert,
            _ => Class::StopAlert,
        })
    }
}

fn fits(pattern: &str, code: &str) -> bool {
    if let Some(family) = pattern.strip_suffix(".*") {
        return code
            .strip_prefix(family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    }
    match pattern.strip_suffix('*') {
        Some(start) => code.starts_with(start),
        None => pattern == code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the reference, written down a second time in the vendors' own codes.
    const EXPECTED: &[(Table, Class, &[&str])] = &[
        (
            ALIYUN,
            Next,
            &[
                "isv.OUT_OF_SERVICE",
                "isv.AMOUNT_NOT_ENOUGH",
                "isv.PRODUCT_UN_SUBSCRIPT",
                "isv.ACCOUNT_ABNORMAL",
                "isp.SYSTEM_ERROR",
                "isp.GATEWAY_ERROR",
                "isv.NOT_SUPPORTED_COUNTRY",
                "Throttling.User",
                "Throttling.Api",
                "Throttling",
            ],
        ),
        (
            ALIYUN,
            NextAlert,
            &[
                "SignatureDoesNotMatch",
                "InvalidAccessKeyId.NotFound",
                "InvalidAccessKeyId.Inactive",
                "isp.RAM_PERMISSION_DENY",
                "isv.SMS_TEMPLATE_ILLEGAL",
                "isv.SMS_SIGNATURE_ILLEGAL",
                "isv.TEMPLATE_MISSING_PARAMETERS",
                "isv.INVALID_JSON_PARAM",
            ],
        ),
        (
            ALIYUN,
            Stop,
            &[
                "isv.MOBILE_NUMBER_ILLEGAL",
                "isv.BUSINESS_LIMIT_CONTROL",
                "isv.BLACK_KEY_CONTROL_LIMIT",
            ],
        ),
        (
            TENCENT,
            Next,
            &[
                "FailedOperation.InsufficientBalanceInSmsPackage",
                "UnauthorizedOperation.SerivceSuspendDueToArrears",
                "UnauthorizedOperation.SdkAppIdIsDisabled",
                "LimitExceeded.AppDailyLimit",
                "LimitExceeded.DailyLimit",
                "RequestLimitExceeded",
                "RequestLimitExceeded.UinLimitExceeded",
                "RequestLimitExceededUin",
                "UnsupportedOperation.UnsuportedRegion",
                "InternalError.OtherError",
                "InternalError",
            ],
        ),
        (
            TENCENT,
            NextAlert,
            &[
                "AuthFailure.SignatureFailure",
                "AuthFailure.SecretIdNotFound",
                "FailedOperation.SignatureIncorrectOrUnapproved",
                "FailedOperation.TemplateIncorrectOrUnapproved",
                "InvalidParameterValue.TemplateParameterFormatError",
                "UnauthorizedOperation.RequestIpNotInWhitelist",
            ],
        ),
        (
            TENCENT,
            Stop,
            &[
                "InvalidParameterValue.IncorrectPhoneNumber",
                "LimitExceeded.PhoneNumberOneHourLimit",
                "LimitExceeded.PhoneNumberDailyLimit",
                "LimitExceeded.PhoneNumberThirtySecondLimit",
                "LimitExceeded.DeliveryFrequencyLimit",
                "FailedOperation.PhoneNumberInBlacklist",
                "FailedOperation.PhoneNumberOnBlacklist",
                "FailedOperation.ContainSensitiveWord",
            ],
        ),
        (
            TENCENT,
            Ambiguous,
            &["InternalError.SendAndRecvFail", "InternalError.Timeout"],
        ),
        (TWILIO, Next, &["20429", "21408", "21612", "30001"]),
        (TWILIO, NextAlert, &["10001", "20003", "21606"]),
        (
            TWILIO,
            Stop,
            &[
                "21211", "21610", "21614", "30450", "60203", "60410", "60605",
            ],
        ),
    ];

    #[test]
    fn every_code_of_the_reference_has_its_class() {
        for (table, class, codes) in EXPECTED {
            for code in *codes {
                assert_eq!(table.class(code), Some(*class), "{} {code}", table.provider);
            }
        }
    }

    #[test]
    fn no_row_is_hidden_by_another_and_none_is_untested() {
        for table in TABLES {
            for (i, (pattern, class)) in table.rows.iter().enumerate() {
                let example = pattern.trim_end_matches('*').trim_end_matches('.');
                let first = table.rows.iter().position(|(p, _)| fits(p, example));
                assert_eq!(first, Some(i), "{} {pattern}", table.provider);
                let tested = EXPECTED.iter().any(|(t, c, codes)| {
                    t.provider == table.provider
                        && c == class
                        && codes.iter().any(|code| fits(pattern, code))
                });
                assert!(tested, "{} {pattern}", table.provider);
            }
        }
    }

    #[test]
    fn unknown_codes_follow_the_status() {
        for table in TABLES {
            assert_eq!(table.class_or("no.such", 400), Class::StopAlert);
            assert_eq!(table.class_or("no.such", 200), Class::StopAlert);
            assert_eq!(table.class_or("no.such", 503), Next);
            assert_eq!(table.class_or("", 302), NextAlert);
        }
        assert_eq!(ALIYUN.class("InvalidAccessKeyIdX"), None);
        assert_eq!(ALIYUN.class("isv.OUT_OF_SERVICE.x"), None);
    }
}
