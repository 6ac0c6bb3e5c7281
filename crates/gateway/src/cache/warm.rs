//! Warm-up: a bounded list of addresses, fetched through the gateway itself at start and on schedule.

use std::collections::HashSet;
use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream;
use serde::{Deserialize, Serialize};

/// Most addresses of one list, and how many are fetched at a time.
pub(super) const TARGETS_MAX: usize = 200;
const AT_A_TIME: usize = 8;

/// One address to fetch: `/api/…` on the gateway's first host, or a whole URL. Setting `gateway.cache.warmup`, where
/// a text alone stands for its URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Entry")]
pub struct WarmTarget {
    pub url: String,
    /// The id of the tenant whose copy is warmed; none for what strangers see, who belong to the default tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Url(String),
    Whole(Whole),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    url: String,
    #[serde(default)]
    tenant: Option<String>,
}

impl From<Entry> for WarmTarget {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Url(url) => Self { url, tenant: None },
            Entry::Whole(Whole { url, tenant }) => Self { url, tenant },
        }
    }
}

/// A checked list without repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmList(Vec<WarmTarget>);

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmFault {
    pub index: usize,
    pub message: String,
}

/// What became of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmReport {
    pub fetched: usize,
    /// The services behind these were not ready; the next run tries again.
    pub not_ready: Vec<WarmTarget>,
    /// Address and reason, for the log.
    pub failed: Vec<(String, String)>,
}

impl WarmList {
    /// Checks a list; reports all faults.
    pub fn new(targets: Vec<WarmTarget>) -> Result<Self, Vec<WarmFault>> {
        let mut faults = Vec::new();
        if targets.len() > TARGETS_MAX {
            faults.push(WarmFault {
                index: TARGETS_MAX,
                message: format!("at most {TARGETS_MAX} addresses"),
            });
        }
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for (index, target) in targets.into_iter().enumerate() {
            let web = target.url.starts_with("http://") || target.url.starts_with("https://");
            let valid = if web {
                url::Url::parse(&target.url)
                    .is_ok_and(|u| u.username().is_empty() && u.password().is_none())
            } else {
                target.url.starts_with('/') && !target.url.starts_with("//")
            };
            let tenant = target.tenant.as_deref();
            if !valid
                || target
                    .url
                    .bytes()
                    .any(|b| b.is_ascii_control() || b == b' ')
            {
                faults.push(WarmFault {
                    index,
                    message: "must be a path or an http(s) URL without user".to_owned(),
                });
            } else if tenant.is_some_and(|id| uuid::Uuid::parse_str(id).is_err()) {
                faults.push(WarmFault {
                    index,
                    message: "the tenant must be given by its id".to_owned(),
                });
            } else if seen.insert(target.clone()) {
                kept.push(target);
            }
        }
        if faults.is_empty() {
            Ok(Self(kept))
        } else {
            Err(faults)
        }
    }

    pub fn targets(&self) -> &[WarmTarget] {
        &self.0
    }

    /// The entries for which `kept` says yes.
    #[must_use]
    pub fn filtered(&self, kept: impl Fn(&WarmTarget) -> bool) -> Self {
        Self(self.0.iter().filter(|t| kept(t)).cloned().collect())
    }
}

/// Fetches a list, eight at a time. `ready` says whether the service behind an address may be asked yet; `fetch`
/// sends the request through the gateway's own pipeline with the service principal of the target's tenant.
pub async fn warm_up<R, RF, F, FF>(list: &WarmList, ready: R, fetch: F) -> WarmReport
where
    R: Fn(WarmTarget) -> RF,
    RF: Future<Output = bool>,
    F: Fn(WarmTarget) -> FF,
    FF: Future<Output = Result<(), String>>,
{
    let (ready, fetch) = (&ready, &fetch);
    stream::iter(list.0.iter().cloned())
        .map(|target| async move {
            if !ready(target.clone()).await {
                return (target, None);
            }
            let result = fetch(target.clone()).await;
            (target, Some(result))
        })
        .buffer_unordered(AT_A_TIME)
        .fold(
            WarmReport::default(),
            |mut report, (target, result)| async move {
                match result {
                    None => report.not_ready.push(target),
                    Some(Ok(())) => report.fetched += 1,
                    Some(Err(reason)) => report.failed.push((target.url, reason)),
                }
                report
            },
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn target(url: &str) -> WarmTarget {
        WarmTarget {
            url: url.to_owned(),
            tenant: None,
        }
    }

    #[test]
    fn lists_are_checked_as_a_whole() {
        let good = WarmList::new(vec![target("/a"), target("/a"), target("https://h/b?c=1")])
            .expect("valid");
        assert_eq!(good.targets().len(), 2, "once each");
        let faults = WarmList::new(vec![
            target("a"),
            target("/ok"),
            target("//evil"),
            target("http://u:p@h/"),
            target("ftp://h/"),
        ])
        .expect_err("four faults");
        assert_eq!(
            faults.iter().map(|f| f.index).collect::<Vec<_>>(),
            [0, 2, 3, 4]
        );
        let many = (0..=TARGETS_MAX)
            .map(|n| target(&format!("/{n}")))
            .collect();
        assert_eq!(
            WarmList::new(many).expect_err("too many")[0].index,
            TARGETS_MAX
        );
    }

    #[test]
    fn a_text_alone_is_a_url() {
        let list: Vec<WarmTarget> = serde_json::from_str(
            r#"["/a", {"url": "/b", "tenant": "00000000-0000-7000-8000-000000000002"}]"#,
        )
        .expect("both forms");
        assert_eq!(list[0], target("/a"));
        assert!(list[1].tenant.is_some());
        assert!(serde_json::from_str::<WarmTarget>(r#"{"url":"/","x":1}"#).is_err());
        let nameless = WarmTarget {
            tenant: Some("acme".to_owned()),
            ..target("/a")
        };
        assert_eq!(
            WarmList::new(vec![nameless]).expect_err("no id")[0].index,
            0
        );
    }

    #[tokio::test]
    async fn eight_at_a_time_and_only_when_ready() {
        let list =
            WarmList::new((0..100).map(|n| target(&format!("/{n}"))).collect()).expect("valid");
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let report = warm_up(
            &list,
            |t| async move { !t.url.ends_with('7') },
            |t| {
                let (now, most) = (&now, &most);
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    if t.url == "/3" {
                        Err("refused".to_owned())
                    } else {
                        Ok(())
                    }
                }
            },
        )
        .await;
        assert_eq!((report.fetched, report.not_ready.len()), (89, 10));
        assert!(report.not_ready.iter().all(|t| t.url.ends_with('7')));
        assert_eq!(report.failed, [("/3".to_owned(), "refused".to_owned())]);
        assert_eq!(most.load(Ordering::SeqCst), AT_A_TIME);
    }
}
