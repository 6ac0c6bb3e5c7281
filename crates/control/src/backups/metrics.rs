//! What alerts need to know of backups (OB-2), the same in every process.

use portico_telemetry::metrics::{Gauge, GaugeFamily, Registry};

use super::store::Row;

static SUCCESS: GaugeFamily = GaugeFamily::new(
    "portico_backup_last_success_timestamp_seconds",
    "when the newest backup that ended well was begun; 0 without one",
    &[],
    1,
);
static BYTES: GaugeFamily = GaugeFamily::new(
    "portico_backup_bytes",
    "size of the newest backup that ended well",
    &[],
    1,
);
static VERIFIED: GaugeFamily = GaugeFamily::new(
    "portico_backup_verified_timestamp_seconds",
    "when a backup was found good by a restore into a scratch database; 0 without one",
    &[],
    1,
);

/// The gauges.
pub(crate) struct Figures {
    success: Gauge,
    bytes: Gauge,
    verified: Gauge,
}

/// Declares them, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[SUCCESS.family(), BYTES.family(), VERIFIED.family()]);
}

impl Figures {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            success: registry.gauge(&SUCCESS).with(&[]),
            bytes: registry.gauge(&BYTES).with(&[]),
            verified: registry.gauge(&VERIFIED).with(&[]),
        }
    }

    /// Shows the newest good backup, and when any was verified.
    pub(super) fn show(&self, newest: Option<&Row>, rows: &[Row]) {
        let seconds = |at: portico_base::Timestamp| at.timestamp() as f64;
        self.success.set(newest.map_or(0.0, |row| seconds(row.at)));
        let bytes = newest.and_then(|row| row.bytes).unwrap_or(0);
        self.bytes.set(bytes as f64);
        let verified = rows.iter().filter_map(|row| row.verified_at).max();
        self.verified.set(verified.map_or(0.0, seconds));
    }
}
