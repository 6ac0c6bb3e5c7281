//! Where one WebSocket frame ends and the next begins (RFC 6455 §5.2): all that a relay must know to
//! say goodbye in between.

/// The opcode of a Close frame.
const CLOSE: u8 = 8;
/// Bytes of a head that every frame has.
const SHORTEST: u8 = 2;

/// Follows the frames of one direction, byte by byte, without keeping any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    /// Bytes of the present head that have passed; 0 between heads.
    seen: u8,
    /// Where the length's own bytes end, and the head.
    length_end: u8,
    head_end: u8,
    length: u64,
    /// Bytes of the present payload still to come.
    payload: u64,
    is_close: bool,
    closed: bool,
}

impl Frames {
    pub(super) fn advance(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.payload > 0 {
                let n = usize::try_from(self.payload).map_or(data.len(), |n| n.min(data.len()));
                self.payload -= n as u64;
                data = &data[n..];
                continue;
            }
            self.head(data[0]);
            data = &data[1..];
        }
    }

    fn head(&mut self, byte: u8) {
        match self.seen {
            0 => {
                self.is_close = byte & 0x0f == CLOSE;
                self.head_end = u8::MAX;
            }
            1 => {
                let mask = if byte & 0x80 == 0 { 0 } else { 4 };
                let (extended, length) = match byte & 0x7f {
                    126 => (2, 0),
                    127 => (8, 0),
                    short => (0, u64::from(short)),
                };
                self.length = length;
                self.length_end = SHORTEST + extended;
                self.head_end = self.length_end + mask;
            }
            n if n < self.length_end => self.length = (self.length << 8) | u64::from(byte),
            _ => {}
        }
        self.seen += 1;
        if self.seen == self.head_end {
            self.seen = 0;
            self.payload = self.length;
            self.closed |= self.is_close;
        }
    }

    /// True when the next byte begins a frame.
    pub(super) const fn is_between(&self) -> bool {
        self.seen == 0 && self.payload == 0
    }

    /// True once a Close frame has passed whole.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed && self.is_between()
    }

    /// How many bytes may be taken without going beyond the present frame: 0 between two.
    pub(super) fn left(&self) -> u64 {
        match (self.seen, self.payload) {
            (0, payload) => payload,
            (1, _) => 1,
            (seen, _) => u64::from(self.head_end - seen),
        }
    }
}

/// Follows any bytes, for the fuzz target: piece by piece the same end is found as byte by byte.
///
/// # Panics
/// When it is not: that is the finding.
pub(crate) fn fuzz(bytes: &[u8]) {
    let (mut slow, mut quick) = (Frames::default(), Frames::default());
    for byte in bytes {
        slow.advance(std::slice::from_ref(byte));
        assert_eq!(slow.is_between(), slow.left() == 0);
    }
    quick.advance(bytes);
    assert_eq!(
        (quick.left(), quick.is_closed()),
        (slow.left(), slow.is_closed())
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with a head of every length.
    fn frame(opcode: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut out = vec![0x80 | opcode];
        match length {
            0..=125 => out.push(mask | length as u8),
            126..=0xffff => {
                out.push(mask | 126);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        out.extend(vec![0x88; length + if masked { 4 } else { 0 }]);
        out
    }

    proptest! {
        #[test]
        fn every_frames_end_is_seen_however_the_bytes_arrive(
            frames in prop::collection::vec((0_u8..3, any::<bool>(), prop_oneof![0_usize..200, 65_000_usize..67_000]), 1..6),
            cut in 1_usize..5000,
        ) {
            let (mut ends, mut bytes) = (vec![0], Vec::new());
            for (opcode, masked, length) in frames {
                bytes.extend(frame(opcode, masked, length));
                ends.push(bytes.len());
            }
            let mut follower = Frames::default();
            let mut at = 0;
            for piece in bytes.chunks(cut) {
                follower.advance(piece);
                at += piece.len();
                prop_assert_eq!(follower.is_between(), ends.contains(&at));
            }
            prop_assert!(follower.is_between() && !follower.is_closed());
            // Taking no more than is left always stops at the next end.
            let mut follower = Frames::default();
            let mut at = 0;
            while at < bytes.len() {
                let n = if follower.is_between() { 1 } else { follower.left() as usize };
                follower.advance(&bytes[at..at + n]);
                at += n;
                let next = ends.iter().find(|end| **end > at - n).unwrap();
                prop_assert!(at <= *next);
            }
            follower.advance(&frame(CLOSE, true, 2));
            prop_assert!(follower.is_closed());
        }

        #[test]
        fn any_bytes_are_followed(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz(&bytes);
        }
    }
}
