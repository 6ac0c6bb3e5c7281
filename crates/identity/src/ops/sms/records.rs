//! Sent messages, and figures of them by provider and day (ID-53).

use std::collections::BTreeMap;

use chrono::{Duration, NaiveDate};
use portico_base::{Context, Timestamp};
use uuid::Uuid;

use super::hashes;
use crate::domain::contact::{Country, check_phone};
use crate::domain::sms::SmsRecord;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::ops::{need, scope};
use crate::permissions::SMS_READ;
use crate::store;
use crate::store::sms_records::{Figures, Filter};

/// Attempts that statistics read at most.
const MOST: u64 = 200_000;

/// Figures of a provider on a day.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Day {
    pub day: NaiveDate,
    pub provider: String,
    /// Taken by the provider, receipts included.
    pub sent: u32,
    pub failed: u32,
    /// Perhaps delivered.
    pub ambiguous: u32,
    /// Codes that came back.
    pub verified: u32,
    /// Verified of the codes sent and ambiguous, in percent; absent when none was sent.
    pub conversion_percent: Option<f64>,
    pub p95_ms: u32,
    pub segments: u64,
    pub cost_micro: i64,
}

/// Figures of a span.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Newest day first, then by provider.
    pub days: Vec<Day>,
    /// There were more attempts than are read: the last days are not whole.
    pub truncated: bool,
}

/// A page of attempts, newest first. `phone` is a whole number.
pub(crate) async fn list(
    core: &Core,
    cx: &Context,
    tenant: Option<&str>,
    phone: Option<&str>,
    mut filter: Filter,
    limit: u64,
) -> Result<Vec<SmsRecord>> {
    need(cx, SMS_READ)?;
    let tenant = scope::tenant(core.db.reader(), cx, tenant).await?.id;
    if let Some(phone) = phone {
        let phone = check_phone(phone, Country::CN).map_err(|fault| Error::Invalid(vec![fault]))?;
        filter.phone_hash = Some(hashes(core, &phone).0);
    }
    Ok(store::sms_records::page(core.db.reader(), tenant, &filter, limit).await?)
}

/// Figures of the last days, today included; days are those of UTC.
pub(crate) async fn stats(
    core: &Core,
    cx: &Context,
    tenant: Option<&str>,
    days: u32,
) -> Result<Stats> {
    need(cx, SMS_READ)?;
    if !(1..=31).contains(&days) {
        return Err(Error::field("days", "range", "must be from 1 to 31"));
    }
    let tenant: Uuid = scope::tenant(core.db.reader(), cx, tenant).await?.id;
    let today = cx.now().date_naive();
    let first = today - Duration::days(i64::from(days) - 1);
    let from: Timestamp = first.and_time(chrono::NaiveTime::MIN).and_utc();
    let span = (from, cx.now() + Duration::seconds(1));
    let rows = store::sms_records::figures(core.db.reader(), tenant, span, MOST + 1).await?;
    let most = usize::try_from(MOST).unwrap_or(usize::MAX);
    Ok(Stats {
        truncated: rows.len() > most,
        days: by_day(rows.into_iter().take(most)),
    })
}

fn by_day(rows: impl Iterator<Item = Figures>) -> Vec<Day> {
    let mut groups: BTreeMap<(std::cmp::Reverse<NaiveDate>, String), Group> = BTreeMap::new();
    for row in rows {
        let day = row.at.date_naive();
        let group = groups
            .entry((std::cmp::Reverse(day), row.provider.clone()))
            .or_insert_with(|| Group::new(day, row.provider.clone()));
        let figures = &mut group.day;
        match row.status.as_str() {
            "sent" | "delivered" => figures.sent += 1,
            "ambiguous" => figures.ambiguous += 1,
            _ => figures.failed += 1,
        }
        figures.verified += u32::from(row.verified);
        figures.segments += u64::from(row.segments);
        figures.cost_micro = figures.cost_micro.saturating_add(row.cost_micro);
        group.latencies.push(row.latency_ms);
        let out = matches!(row.status.as_str(), "sent" | "delivered" | "ambiguous");
        group.codes += u32::from(out && !row.notice);
    }
    groups.into_values().map(Group::finish).collect()
}

/// A provider's day while it is counted.
struct Group {
    day: Day,
    latencies: Vec<u32>,
    /// Codes that left.
    codes: u32,
}

impl Group {
    const fn new(day: NaiveDate, provider: String) -> Self {
        Self {
            day: Day {
                day,
                provider,
                sent: 0,
                failed: 0,
                ambiguous: 0,
                verified: 0,
                conversion_percent: None,
                p95_ms: 0,
                segments: 0,
                cost_micro: 0,
            },
            latencies: Vec::new(),
            codes: 0,
        }
    }

    fn finish(mut self) -> Day {
        self.latencies.sort_unstable();
        self.day.p95_ms = nearest_rank(&self.latencies, 95);
        self.day.conversion_percent =
            (self.codes > 0).then(|| f64::from(self.day.verified) * 100.0 / f64::from(self.codes));
        self.day
    }
}

/// The smallest value that at least `percent` of a sorted list do not exceed.
fn nearest_rank(sorted: &[u32], percent: usize) -> u32 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank_of_95_percent() {
        let all: Vec<u32> = (1..=100).collect();
        assert_eq!(nearest_rank(&all, 95), 95);
        assert_eq!(nearest_rank(&all[..20], 95), 19);
        assert_eq!(nearest_rank(&[7], 95), 7);
        assert_eq!(nearest_rank(&[], 95), 0);
    }

    #[test]
    fn days_and_providers_are_apart() {
        let row = |at: &str, provider: &str, status: &str, verified| Figures {
            provider: provider.to_owned(),
            status: status.to_owned(),
            latency_ms: 100,
            segments: 1,
            cost_micro: 45_000,
            notice: false,
            verified,
            at: at.parse().unwrap(),
        };
        let days = by_day(
            [
                row("2026-01-01T23:59:59Z", "aliyun", "sent", true),
                row("2026-01-02T00:00:00Z", "aliyun", "sent", true),
                row("2026-01-02T01:00:00Z", "aliyun", "ambiguous", false),
                row("2026-01-02T02:00:00Z", "aliyun", "failed", false),
                row("2026-01-02T02:00:00Z", "tencent", "failed", false),
                // Nothing comes back of news, so they do not lower the conversion.
                Figures {
                    notice: true,
                    ..row("2026-01-02T03:00:00Z", "aliyun", "sent", false)
                },
            ]
            .into_iter(),
        );
        let shown: Vec<_> = days
            .iter()
            .map(|d| {
                (
                    d.day.to_string(),
                    d.provider.as_str(),
                    d.sent,
                    d.failed,
                    d.verified,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("2026-01-02".to_owned(), "aliyun", 2, 1, 1),
                ("2026-01-02".to_owned(), "tencent", 0, 1, 0),
                ("2026-01-01".to_owned(), "aliyun", 1, 0, 1),
            ]
        );
        assert_eq!(days[0].conversion_percent, Some(50.0));
        assert_eq!(days[1].conversion_percent, None);
        assert_eq!(days[0].cost_micro, 180_000);
    }
}
