//! Which backups are kept: the newest of each of the last days, weeks and months that have any (CT-120).

use std::collections::BTreeSet;

use chrono::Datelike as _;
use portico_base::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many are kept of each span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            daily: 7,
            weekly: 4,
            monthly: 6,
        }
    }
}

impl Keep {
    /// The backups that nobody needs any more. The newest is always kept, whatever the numbers are.
    #[must_use]
    pub fn superfluous(&self, mut backups: Vec<(Uuid, Timestamp)>) -> Vec<Uuid> {
        backups.sort_by_key(|(id, at)| std::cmp::Reverse((*at, *id)));
        let mut kept: BTreeSet<Uuid> = backups.first().map(|(id, _)| *id).into_iter().collect();
        type Span = fn(&Timestamp) -> (i32, u32);
        let spans: [(u32, Span); 3] = [
            (self.daily, |at| (at.year(), at.ordinal())),
            (self.weekly, |at| {
                (at.iso_week().year(), at.iso_week().week())
            }),
            (self.monthly, |at| (at.year(), at.month())),
        ];
        for (most, span) in spans {
            let mut seen = BTreeSet::new();
            for (id, at) in &backups {
                if seen.len() >= most as usize {
                    break;
                }
                if seen.insert(span(at)) {
                    kept.insert(*id);
                }
            }
        }
        let all = backups.into_iter().map(|(id, _)| id);
        all.filter(|id| !kept.contains(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::{Duration, TimeZone as _, Utc};

    use super::*;

    fn daily(days: i64) -> Vec<(Uuid, Timestamp)> {
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 3, 0, 0).unwrap();
        (0..days)
            .map(|day| {
                (
                    Uuid::from_u128(day as u128 + 1),
                    start + Duration::days(day),
                )
            })
            .collect()
    }

    #[test]
    fn a_year_of_days_becomes_days_weeks_and_months() {
        let all = daily(365);
        let gone: BTreeSet<Uuid> = Keep::default()
            .superfluous(all.clone())
            .into_iter()
            .collect();
        let kept: Vec<String> = all
            .iter()
            .filter(|(id, _)| !gone.contains(id))
            .map(|(_, at)| at.format("%m-%d").to_string())
            .collect();
        // The last of July to November, the last days of three weeks, the last seven days.
        let wanted = [
            "07-31", "08-31", "09-30", "10-31", "11-30", "12-13", "12-20", "12-25", "12-26",
            "12-27", "12-28", "12-29", "12-30", "12-31",
        ];
        assert_eq!(kept, wanted);
        // What was kept is kept the next time as well.
        let left: Vec<_> = all
            .into_iter()
            .filter(|(id, _)| !gone.contains(id))
            .collect();
        assert!(Keep::default().superfluous(left).is_empty());
    }

    #[test]
    fn of_many_in_a_day_the_newest_stays_and_one_always_does() {
        let at = Utc.with_ymd_and_hms(2026, 5, 5, 0, 0, 0).unwrap();
        let many: Vec<_> = (0..20)
            .map(|n| (Uuid::from_u128(n + 1), at + Duration::hours(n as i64)))
            .collect();
        let gone = Keep::default().superfluous(many.clone());
        assert_eq!(gone.len(), 19);
        assert!(!gone.contains(&many[19].0));
        let none = Keep {
            daily: 0,
            weekly: 0,
            monthly: 0,
        };
        assert_eq!(none.superfluous(many).len(), 19);
        assert!(none.superfluous(Vec::new()).is_empty());
    }
}
