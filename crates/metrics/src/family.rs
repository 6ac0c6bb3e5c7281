//! Declarations of metric families: name, help, labels and the most series each may have (OB-2, OB-3).
//!
//! A family is a `static`; its form is checked when it is compiled, so that a wrong name is no run-time fault.

/// Sizes of the fixed buckets of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buckets {
    /// Durations: 0.5 ms × 2ⁿ for n in 0..=16, that is to 32.768 s; observed in nanoseconds.
    Seconds,
    /// Sizes: 256 B × 4ⁿ for n in 0..=11, that is to 1 GiB; observed in bytes.
    Bytes,
}

impl Buckets {
    /// Number of upper bounds, without `+Inf`.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Seconds => 17,
            Self::Bytes => 12,
        }
    }

    /// Never true; the buckets are fixed.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Upper bound `index` in the unit that is exposed (seconds or bytes).
    #[must_use]
    pub fn bound(self, index: usize) -> f64 {
        match self {
            Self::Seconds => (500_000_u64 << index) as f64 / 1e9,
            Self::Bytes => (256_u64 << (2 * index)) as f64,
        }
    }

    /// Index of the bucket of a raw value (nanoseconds or bytes); [`Buckets::len`] means `+Inf`.
    #[must_use]
    pub const fn index(self, raw: u64) -> usize {
        let (unit, step) = match self {
            Self::Seconds => (500_000, 1),
            Self::Bytes => (256, 2),
        };
        if raw <= unit {
            return 0;
        }
        let bits = 64 - ((raw - 1) / unit).leading_zeros() as usize;
        let index = bits.div_ceil(step);
        if index > self.len() {
            self.len()
        } else {
            index
        }
    }

    /// A raw value in the unit that is exposed.
    #[must_use]
    pub fn expose(self, raw: u64) -> f64 {
        match self {
            Self::Seconds => raw as f64 / 1e9,
            Self::Bytes => raw as f64,
        }
    }
}

/// What a family measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; the name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution over fixed buckets.
    Histogram(Buckets),
}

impl Kind {
    /// The word of the exposition formats.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A metric family: everything about it but its values.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `portico_<area>_<what>_<unit>`, or a standard `process_…` name.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Names of the labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// The most series it may have in one process; further label values become `other`.
    pub max_series: usize,
}

impl Family {
    /// The unit that the name carries, when it is one of the base units.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let stem = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes", "ratio"]
            .into_iter()
            .find(|unit| stem.ends_with(unit) && stem.len() > unit.len())
    }

    /// The most lines it adds to a scrape for one set of label values.
    #[must_use]
    pub const fn lines_per_series(&self) -> usize {
        match self.kind {
            Kind::Counter | Kind::Gauge => 1,
            Kind::Histogram(buckets) => buckets.len() + 3,
        }
    }
}

macro_rules! typed_family {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Family);

        impl $name {
            /// The untyped declaration.
            #[must_use]
            pub const fn family(&'static self) -> &'static Family {
                &self.0
            }
        }
    };
}

typed_family!(
    /// A family of counters.
    CounterFamily
);
typed_family!(
    /// A family of gauges.
    GaugeFamily
);
typed_family!(
    /// A family of histograms.
    HistogramFamily
);

impl CounterFamily {
    /// Declares counters; the name must end in `_total`.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        max_series: usize,
    ) -> Self {
        check(name, help, labels, max_series);
        assert!(ends_with(name, "_total"), "a counter ends in _total");
        Self(Family {
            name,
            help,
            kind: Kind::Counter,
            labels,
            max_series,
        })
    }
}

impl GaugeFamily {
    /// Declares gauges.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        max_series: usize,
    ) -> Self {
        check(name, help, labels, max_series);
        assert!(
            !ends_with(name, "_total"),
            "only a counter may end in _total"
        );
        Self(Family {
            name,
            help,
            kind: Kind::Gauge,
            labels,
            max_series,
        })
    }
}

impl HistogramFamily {
    /// Declares histograms of durations; the name must end in `_seconds`.
    #[must_use]
    pub const fn seconds(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        max_series: usize,
    ) -> Self {
        assert!(
            ends_with(name, "_seconds"),
            "durations are exposed in seconds"
        );
        Self::of(name, help, labels, max_series, Buckets::Seconds)
    }

    /// Declares histograms of sizes; the name must end in `_bytes`.
    #[must_use]
    pub const fn bytes(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        max_series: usize,
    ) -> Self {
        assert!(ends_with(name, "_bytes"), "sizes are exposed in bytes");
        Self::of(name, help, labels, max_series, Buckets::Bytes)
    }

    const fn of(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        max_series: usize,
        buckets: Buckets,
    ) -> Self {
        check(name, help, labels, max_series);
        Self(Family {
            name,
            help,
            kind: Kind::Histogram(buckets),
            labels,
            max_series,
        })
    }
}

/// Labels that OB-3 forbids: they grow with users, tenants, objects or clients.
const FORBIDDEN: &[&str] = &[
    "user", "user_id", "id", "path", "url", "address", "ip", "email", "le", "quantile",
];

const fn check(name: &str, help: &str, labels: &[&str], max_series: usize) {
    assert!(
        starts_with(name, "portico_") || starts_with(name, "process_"),
        "a metric's name begins with portico_ or process_"
    );
    assert!(is_snake(name), "a metric's name is snake_case");
    assert!(
        help.len() > 10,
        "help is a sentence that says what is counted"
    );
    assert!(max_series > 0, "a family has at least one series");
    assert!(
        labels.len() <= 6,
        "more than six labels is no metric but a log"
    );
    assert!(
        !labels.is_empty() || max_series == 1,
        "without labels there is one series"
    );
    let mut i = 0;
    while i < labels.len() {
        assert!(is_snake(labels[i]), "a label's name is snake_case");
        let mut j = 0;
        while j < FORBIDDEN.len() {
            assert!(
                !equal(labels[i], FORBIDDEN[j]),
                "this label has no bound (OB-3)"
            );
            j += 1;
        }
        i += 1;
    }
}

const fn is_snake(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        if !(bytes[i].is_ascii_lowercase() || bytes[i].is_ascii_digit() || bytes[i] == b'_') {
            return false;
        }
        i += 1;
    }
    true
}

const fn starts_with(text: &str, prefix: &str) -> bool {
    let (text, prefix) = (text.as_bytes(), prefix.as_bytes());
    if text.len() < prefix.len() {
        return false;
    }
    same_at(text, 0, prefix)
}

const fn ends_with(text: &str, suffix: &str) -> bool {
    let (text, suffix) = (text.as_bytes(), suffix.as_bytes());
    if text.len() < suffix.len() {
        return false;
    }
    same_at(text, text.len() - suffix.len(), suffix)
}

const fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && same_at(a.as_bytes(), 0, b.as_bytes())
}

const fn same_at(text: &[u8], at: usize, part: &[u8]) -> bool {
    let mut i = 0;
    while i < part.len() {
        if text[at + i] != part[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static REQUESTS: CounterFamily =
        CounterFamily::new("portico_x_total", "things that happened", &["kind"], 4);

    #[test]
    fn units_come_from_names() {
        assert_eq!(REQUESTS.family().unit(), None);
        static TIME: HistogramFamily =
            HistogramFamily::seconds("portico_x_seconds", "time it took to do it", &[], 1);
        assert_eq!(TIME.family().unit(), Some("seconds"));
        assert_eq!(TIME.family().lines_per_series(), 20);
    }

    #[test]
    fn bounds_are_inclusive() {
        for buckets in [Buckets::Seconds, Buckets::Bytes] {
            for i in 0..buckets.len() {
                let raw = match buckets {
                    Buckets::Seconds => 500_000_u64 << i,
                    Buckets::Bytes => 256 << (2 * i),
                };
                assert_eq!(buckets.index(raw), i, "{buckets:?} {raw}");
                assert_eq!(buckets.index(raw + 1), i + 1, "{buckets:?} {raw} + 1");
            }
            assert_eq!(buckets.index(u64::MAX), buckets.len());
            assert_eq!(buckets.index(0), 0);
        }
        assert!((Buckets::Seconds.bound(16) - 32.768).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn index_agrees_with_bounds(raw in 0_u64..1 << 40) {
            for buckets in [Buckets::Seconds, Buckets::Bytes] {
                let linear = (0..buckets.len())
                    .find(|i| buckets.expose(raw) <= buckets.bound(*i))
                    .unwrap_or(buckets.len());
                prop_assert_eq!(buckets.index(raw), linear);
            }
        }
    }
}
