//! An expression in a time zone: which moments it names, on days when the clock is changed as well.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use portico_base::Timestamp;

/// Longest expression, in bytes.
const LENGTH: usize = 100;

/// Moments of a calendar. A fixed time (`30 2 * * *`) that a day does not have, because the clock is put
/// forward over it, comes at the first moment after the gap; one that a day has twice comes the first time
/// only. Times at an interval (`*/10 * * * *`) come as the hours do: none in a gap, both in a doubled hour.
/// These are the rules of Debian's cron, which croner implements.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    cron: croner::Cron,
    zone: Tz,
}

impl Schedule {
    /// Five fields, or six with seconds first: `0 3 * * *`, `*/15 * * * * *`; names of days and months,
    /// `L`, `#` and `W` as croner reads them. The zone is an IANA name.
    ///
    /// # Errors
    /// What is wrong, as a sentence without its beginning.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, String> {
        if expression.len() > LENGTH {
            return Err(format!("is longer than {LENGTH} bytes"));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(expression)
            .map_err(|error| format!("is no cron expression: {error}"))?;
        let schedule = Self {
            cron,
            zone: Self::zone(zone)?,
        };
        match schedule.next_after(DateTime::<Utc>::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err("names a moment that never comes".to_owned()),
        }
    }

    /// Reads the name of a zone.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn zone(name: &str) -> Result<Tz, String> {
        name.parse()
            .map_err(|_| "is no IANA time zone (UTC, Asia/Shanghai)".to_owned())
    }

    /// The first moment behind another one.
    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let from = at.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// The last moment that is not behind another one.
    #[must_use]
    pub fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        let from = at.with_timezone(&self.zone);
        let last = self.cron.find_previous_occurrence(&from, true).ok()?;
        Some(last.with_timezone(&Utc))
    }

    /// The next moments.
    #[must_use]
    pub fn next(&self, mut at: Timestamp, count: usize) -> Vec<Timestamp> {
        let mut moments = Vec::with_capacity(count);
        while moments.len() < count {
            let Some(next) = self.next_after(at) else {
                break;
            };
            moments.push(next);
            at = next;
        }
        moments
    }

    /// Of the moments behind `asked` that have come, the last; nothing when none has.
    pub(crate) fn due(&self, asked: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let first = self.next_after(asked).filter(|first| *first <= now)?;
        let last = self.last_until(now).filter(|last| *last <= now);
        Some(last.map_or(first, |last| last.max(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        DateTime::parse_from_rfc3339(text)
            .unwrap()
            .with_timezone(&Utc)
    }

    fn moments(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, zone).unwrap();
        let zone: Tz = zone.parse().unwrap();
        let moments = schedule.next(at(from), count);
        for pair in moments.windows(2) {
            assert!(pair[0] < pair[1]);
            assert_eq!(schedule.due(pair[0], pair[1]), Some(pair[1]));
            assert_eq!(schedule.due(pair[1], pair[1]), None);
        }
        let local = moments.iter().map(|m| m.with_timezone(&zone));
        local
            .map(|m| m.format("%m-%d %H:%M:%S %:z").to_string())
            .collect()
    }

    const BERLIN: &str = "Europe/Berlin";

    /// Expression, zone, moment before, and the local times that follow.
    type Row = (
        &'static str,
        &'static str,
        &'static str,
        &'static [&'static str],
    );

    /// Berlin: 2026-03-29 has no 02:00 to 03:00, 2026-10-25 has it twice. New York: 2026-11-01 has 01:00
    /// to 02:00 twice. Lord Howe moves by half an hour. Shanghai, Kathmandu and UTC never move.
    const MOMENTS: [Row; 10] = [
        // A fixed time in the gap comes once, right behind it.
        (
            "30 2 * * *",
            BERLIN,
            "2026-03-28T12:00:00Z",
            &["03-29 03:00:00 +02:00", "03-30 02:30:00 +02:00"],
        ),
        // A fixed time in the doubled hour comes once, at first.
        (
            "30 2 * * *",
            BERLIN,
            "2026-10-24T12:00:00Z",
            &["10-25 02:30:00 +02:00", "10-26 02:30:00 +01:00"],
        ),
        (
            "15 1 * * *",
            "America/New_York",
            "2026-10-31T12:00:00Z",
            &["11-01 01:15:00 -04:00", "11-02 01:15:00 -05:00"],
        ),
        // Intervals follow the hours that pass.
        (
            "*/30 * * * *",
            BERLIN,
            "2026-03-29T00:20:00Z",
            &[
                "03-29 01:30:00 +01:00",
                "03-29 03:00:00 +02:00",
                "03-29 03:30:00 +02:00",
            ],
        ),
        (
            "*/30 * * * *",
            BERLIN,
            "2026-10-25T00:20:00Z",
            &[
                "10-25 02:30:00 +02:00",
                "10-25 02:00:00 +01:00",
                "10-25 02:30:00 +01:00",
                "10-25 03:00:00 +01:00",
            ],
        ),
        (
            "0 * * * *",
            "Australia/Lord_Howe",
            "2026-04-04T13:30:00Z",
            &[
                "04-05 01:00:00 +11:00",
                "04-05 02:00:00 +10:30",
                "04-05 03:00:00 +10:30",
            ],
        ),
        (
            "0 3 * * *",
            "Asia/Shanghai",
            "2026-11-21T21:00:00Z",
            &["11-23 03:00:00 +08:00", "11-24 03:00:00 +08:00"],
        ),
        (
            "10 0 * * *",
            "Asia/Kathmandu",
            "2026-01-01T00:00:00Z",
            &["01-02 00:10:00 +05:45"],
        ),
        (
            "*/20 * * * * *",
            "UTC",
            "2026-01-01T00:00:05Z",
            &[
                "01-01 00:00:20 +00:00",
                "01-01 00:00:40 +00:00",
                "01-01 00:01:00 +00:00",
            ],
        ),
        (
            "0 9 * * MON-FRI",
            "UTC",
            "2026-11-20T10:00:00Z",
            &["11-23 09:00:00 +00:00", "11-24 09:00:00 +00:00"],
        ),
    ];

    #[test]
    fn moments_come_as_people_mean_them_where_clocks_are_changed() {
        for (expression, zone, from, wanted) in MOMENTS {
            let found = moments(expression, zone, from, wanted.len());
            assert_eq!(found, wanted, "{expression} in {zone}");
        }
    }

    #[test]
    fn what_was_missed_is_one_moment_the_last() {
        let schedule = Schedule::parse("0 3 * * *", "Europe/Berlin").unwrap();
        let asked = at("2026-03-20T02:00:00Z");
        assert_eq!(schedule.due(asked, at("2026-03-21T01:59:59Z")), None);
        let due = schedule.due(asked, at("2026-04-02T12:00:00Z"));
        assert_eq!(due, Some(at("2026-04-02T01:00:00Z")));
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        for (expression, zone, why) in [
            ("* * *", "UTC", "no cron expression"),
            ("61 * * * *", "UTC", "no cron expression"),
            ("", "UTC", "no cron expression"),
            ("0 0 30 2 *", "UTC", "never comes"),
            ("0 3 * * *", "Mars/Olympus", "no IANA time zone"),
        ] {
            let fault = Schedule::parse(expression, zone).unwrap_err();
            assert!(fault.contains(why), "{expression} {zone}: {fault}");
        }
        assert!(Schedule::parse(&"1,".repeat(60), "UTC").is_err());
    }
}
