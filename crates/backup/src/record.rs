//! Records inside the frames, and rows inside records.
//!
//! A record is a byte that says what it is, the length of its body (u32, little-endian) and its body. A
//! body of rows is a number of rows and then their cells: a byte 0 for nothing, else 1 and the value as
//! its column's kind says. Numbers are LEB128 varints, signed ones in zigzag.

use chrono::{DateTime, Utc};
use portico_db::{Cell, CellKind, TableShape};
use uuid::Uuid;

use crate::error::{BackupError, Result};

/// Longest body. No row of ours comes near it.
pub(crate) const MAX_BODY: usize = 16 * 1024 * 1024;
/// Bytes of a body of rows after which the next one begins.
pub(crate) const ROWS_BODY: usize = 128 * 1024;
/// Bytes of one record of an object.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Bytes before a body.
pub(crate) const HEAD: usize = 5;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Manifest,
    Table,
    Rows,
    Object,
    Chunk,
    ObjectEnd,
    Summary,
}

impl RecordKind {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Manifest => b'M',
            Self::Table => b'T',
            Self::Rows => b'R',
            Self::Object => b'O',
            Self::Chunk => b'D',
            Self::ObjectEnd => b'E',
            Self::Summary => b'Z',
        }
    }

    pub(crate) fn of(byte: u8) -> Result<Self> {
        [
            Self::Manifest,
            Self::Table,
            Self::Rows,
            Self::Object,
            Self::Chunk,
            Self::ObjectEnd,
            Self::Summary,
        ]
        .into_iter()
        .find(|kind| kind.byte() == byte)
        .ok_or_else(|| BackupError::damaged("a record of an unknown kind"))
    }
}

/// Rows on their way into a record.
#[derive(Default)]
pub(crate) struct Batch {
    cells: Vec<u8>,
    rows: u64,
}

impl Batch {
    pub(crate) fn add(&mut self, row: &[Cell]) {
        self.rows += 1;
        for cell in row {
            put_cell(&mut self.cells, cell);
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.cells.len() >= ROWS_BODY
    }

    /// The body, and an empty batch in its place.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.cells.len() + 10);
        put_number(&mut body, self.rows);
        body.append(&mut self.cells);
        self.rows = 0;
        body
    }
}

/// The rows of a body.
pub(crate) fn rows(body: &[u8], table: &TableShape) -> Result<Vec<Vec<Cell>>> {
    let mut left = body;
    let count = number(&mut left)?;
    let columns = table.columns.len();
    // Every cell has at least one byte, so a body cannot promise more rows than it has bytes.
    let possible = left.len() / columns.max(1);
    let count = usize::try_from(count)
        .ok()
        .filter(|count| *count <= possible)
        .ok_or_else(|| broken(table))?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let mut row = Vec::with_capacity(columns);
        for column in &table.columns {
            row.push(cell(&mut left, column.kind).map_err(|_| broken(table))?);
        }
        rows.push(row);
    }
    if left.is_empty() {
        Ok(rows)
    } else {
        Err(broken(table))
    }
}

fn broken(table: &TableShape) -> BackupError {
    BackupError::Damaged(format!("the rows of {} cannot be read", table.name))
}

fn put_cell(out: &mut Vec<u8>, cell: &Cell) {
    if *cell == Cell::Null {
        out.push(0);
        return;
    }
    out.push(1);
    match cell {
        Cell::Null => {}
        Cell::Uuid(uuid) => out.extend_from_slice(uuid.as_bytes()),
        Cell::Text(text) | Cell::Json(text) => put_bytes(out, text.as_bytes()),
        Cell::Bool(is) => out.push(u8::from(*is)),
        Cell::Int(number) => put_signed(out, *number),
        Cell::Real(number) => out.extend_from_slice(&number.to_le_bytes()),
        Cell::Time(moment) => {
            put_signed(out, moment.timestamp());
            put_number(out, u64::from(moment.timestamp_subsec_nanos()));
        }
        Cell::Bytes(bytes) => put_bytes(out, bytes),
    }
}

fn cell(left: &mut &[u8], kind: CellKind) -> Result<Cell> {
    match take(left, 1)? {
        [0] => return Ok(Cell::Null),
        [1] => {}
        _ => return Err(cut()),
    }
    Ok(match kind {
        CellKind::Uuid => Cell::Uuid(Uuid::from_slice(take(left, 16)?).map_err(|_| cut())?),
        CellKind::Text => Cell::Text(text(left)?),
        CellKind::Json => Cell::Json(text(left)?),
        CellKind::Bool => match take(left, 1)? {
            [0] => Cell::Bool(false),
            [1] => Cell::Bool(true),
            _ => return Err(cut()),
        },
        CellKind::Int => Cell::Int(signed(left)?),
        CellKind::Real => {
            let bytes = take(left, 8)?.try_into().map_err(|_| cut())?;
            Cell::Real(f64::from_le_bytes(bytes))
        }
        CellKind::Time => {
            let seconds = signed(left)?;
            let nanos = u32::try_from(number(left)?).map_err(|_| cut())?;
            let moment = DateTime::<Utc>::from_timestamp(seconds, nanos);
            Cell::Time(moment.ok_or_else(cut)?)
        }
        CellKind::Bytes => {
            let len = usize::try_from(number(left)?).map_err(|_| cut())?;
            Cell::Bytes(take(left, len)?.to_vec())
        }
    })
}

fn text(left: &mut &[u8]) -> Result<String> {
    let len = usize::try_from(number(left)?).map_err(|_| cut())?;
    let bytes = take(left, len)?;
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| cut())
}

fn take<'a>(left: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(len).ok_or_else(cut)?;
    *left = rest;
    Ok(taken)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(0x80 | u8::try_from(number & 0x7f).unwrap_or(0));
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn number(left: &mut &[u8]) -> Result<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(left, 1)?[0];
        let part = u64::from(byte & 0x7f);
        // The tenth byte holds the last bit only.
        if shift == 63 && part > 1 {
            return Err(cut());
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(cut())
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn signed(left: &mut &[u8]) -> Result<i64> {
    let number = number(left)?;
    Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
}

fn cut() -> BackupError {
    BackupError::damaged("a value cannot be read")
}

#[cfg(test)]
mod tests {
    use portico_db::ColumnShape;
    use proptest::prelude::*;

    use super::*;

    const KINDS: [CellKind; 8] = [
        CellKind::Uuid,
        CellKind::Text,
        CellKind::Bool,
        CellKind::Int,
        CellKind::Real,
        CellKind::Time,
        CellKind::Json,
        CellKind::Bytes,
    ];

    fn table() -> TableShape {
        let columns = KINDS.iter().enumerate().map(|(i, kind)| ColumnShape {
            name: format!("c{i}"),
            kind: *kind,
        });
        TableShape {
            name: "t".to_owned(),
            columns: columns.collect(),
        }
    }

    fn maybe(cell: impl Strategy<Value = Cell>) -> impl Strategy<Value = Cell> {
        (any::<bool>(), cell).prop_map(|(is, cell)| if is { cell } else { Cell::Null })
    }

    fn row() -> impl Strategy<Value = Vec<Cell>> {
        (
            maybe(any::<u128>().prop_map(|n| Cell::Uuid(Uuid::from_u128(n)))),
            maybe(any::<String>().prop_map(Cell::Text)),
            maybe(any::<bool>().prop_map(Cell::Bool)),
            maybe(any::<i64>().prop_map(Cell::Int)),
            maybe((-1e300..1e300).prop_map(Cell::Real)),
            maybe(
                (-60_000_000_000_i64..60_000_000_000, 0..1_000_000_000_u32)
                    .prop_map(|(s, n)| Cell::Time(DateTime::from_timestamp(s, n).unwrap())),
            ),
            maybe(any::<String>().prop_map(Cell::Json)),
            maybe(any::<Vec<u8>>().prop_map(Cell::Bytes)),
        )
            .prop_map(|(a, b, c, d, e, f, g, h)| vec![a, b, c, d, e, f, g, h])
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_went(all in proptest::collection::vec(row(), 0..20)) {
            let mut batch = Batch::default();
            for one in &all {
                batch.add(one);
            }
            prop_assert_eq!(batch.is_empty(), all.is_empty());
            let body = batch.take();
            prop_assert_eq!(rows(&body, &table()).unwrap(), all);
            prop_assert!(batch.is_empty());
        }

        /// Whatever a key holder's hostile file says, reading it ends without a panic or a large allocation.
        #[test]
        fn nonsense_is_an_error(body in any::<Vec<u8>>()) {
            let _ = rows(&body, &table());
        }
    }

    #[test]
    fn a_body_cannot_promise_more_than_it_has() {
        let mut body = Vec::new();
        put_number(&mut body, u64::MAX);
        body.push(0);
        assert!(rows(&body, &table()).is_err());
        for number in [i64::MIN, -1, 0, 1, i64::MAX] {
            let mut out = Vec::new();
            put_signed(&mut out, number);
            assert_eq!(signed(&mut &out[..]).unwrap(), number);
        }
        assert!(signed(&mut &[0xff; 11][..]).is_err());
    }
}
