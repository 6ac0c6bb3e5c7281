//! JSON Canonicalization Scheme (RFC 8785): one text for one value, so that hashes agree everywhere.

use serde_json::{Number, Value};

/// Beyond this a whole number is not exact as a double, which is all that JSON of RFC 8785 knows.
const EXACT: u64 = 1 << 53;

/// The canonical text of a value.
#[must_use]
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::with_capacity(256);
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(n) => number(n, out),
        Value::String(s) => string(s, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            // RFC 8785 §3.2.3 sorts by UTF-16 code units, which differs from UTF-8 beyond the BMP.
            sorted.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            out.push('{');
            for (i, (name, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                string(name, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

/// ECMAScript's escapes are those of serde_json: short forms where they exist, else lower-case `\u00xx`.
fn string(s: &str, out: &mut String) {
    out.push_str(&Value::from(s).to_string());
}

fn number(n: &Number, out: &mut String) {
    if let Some(whole) = n.as_u64().filter(|n| *n <= EXACT) {
        out.push_str(&whole.to_string());
    } else if let Some(whole) = n.as_i64().filter(|n| n.unsigned_abs() <= EXACT) {
        out.push_str(&whole.to_string());
    } else {
        double(n.as_f64().unwrap_or(0.0), out);
    }
}

/// `Number::toString` of ECMAScript (ECMA-262 §6.1.6.1.20): shortest digits, laid out by the exponent.
fn double(value: f64, out: &mut String) {
    if value == 0.0 {
        out.push('0');
        return;
    }
    if value < 0.0 {
        out.push('-');
    }
    let shortest = format!("{:e}", value.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let (k, n) = (digits.len(), exponent.parse::<i32>().unwrap_or(0) + 1);
    let count = i32::try_from(k).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    if count <= n && n <= 21 {
        out.push_str(&digits);
        out.push_str(&zeros(n - count));
    } else if 0 < n && n <= 21 {
        let (whole, rest) = digits.split_at(usize::try_from(n).unwrap_or(k));
        out.push_str(&format!("{whole}.{rest}"));
    } else if -6 < n && n <= 0 {
        out.push_str(&format!("0.{}{digits}", zeros(-n)));
    } else {
        let sign = if n > 0 { '+' } else { '-' };
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        out.push_str(&format!("{first}{dot}{rest}e{sign}{}", (n - 1).abs()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rfcs_own_example() {
        let value = json!({
            "numbers": [333_333_333.333_333_3, 1e30, 4.50, 2e-3, 0.000_000_000_000_000_000_000_000_001],
            "string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/",
            "literals": [null, true, false]
        });
        let wanted = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                      \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(text(&value), wanted);
    }

    #[test]
    fn names_are_sorted_by_utf_16() {
        // U+1F600 is D83D DE00 in UTF-16 and so before U+FB33, behind it in UTF-8 (RFC 8785 §3.2.3).
        let value = json!({ "\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7 });
        assert_eq!(
            text(&value),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn numbers_of_the_rfcs_appendix() {
        for (bits, wanted) in [
            (0x0000_0000_0000_0001_u64, "5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4340_0000_0000_0001, "9007199254740994"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        ] {
            let mut out = String::new();
            double(f64::from_bits(bits), &mut out);
            assert_eq!(out, wanted, "{bits:x}");
        }
        assert_eq!(text(&json!(u64::MAX)), "18446744073709552000");
        assert_eq!(text(&json!(-7)), "-7");
        assert_eq!(text(&json!(1.0)), "1");
    }
}
