//! Signatures that are forged, bent, cut or of something else.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

use super::{House, Table, b64, claims as good_claims};
use crate::access::mint;

/// The order of the group, little-endian.
const N: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

pub(super) fn add(house: &House, table: &mut Table) {
    forged(house, table);
    of_others(house, table);
}

fn forged(house: &House, table: &mut Table) {
    let good = house.good();
    let signature = good.rsplit('.').next().unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let halves = |r: &[u8], s: &[u8]| b64(&[r, s].concat());
    // s + n is the same signature to a verifier that does not look (malleability).
    let mut beyond = [0; 32];
    let mut carry = 0_u16;
    for i in 0..32 {
        carry += u16::from(bytes[32 + i]) + u16::from(N[i]);
        beyond[i] = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    let wrong = [
        ("empty", String::new()),
        ("one byte", b64(&[0])),
        ("short", b64(&bytes[..63])),
        ("long", b64(&[bytes.as_slice(), &[0]].concat())),
        ("twice", b64(&[bytes.as_slice(), &bytes].concat())),
        ("r = 0", halves(&[0; 32], &bytes[32..])),
        ("s = 0", halves(&bytes[..32], &[0; 32])),
        ("both 0", halves(&[0; 32], &[0; 32])),
        (
            "the neutral point",
            halves(&[&[1][..], &[0; 31]].concat(), &[0; 32]),
        ),
        ("r = n", halves(&N, &bytes[32..])),
        ("s = n", halves(&bytes[..32], &N)),
        ("s + n", halves(&bytes[..32], &beyond)),
        ("all ones", b64(&[0xff; 64])),
        (
            "ASN.1",
            b64(&[
                &[0x30, 0x44, 0x02, 0x20],
                &bytes[..32],
                &[0x02, 0x20],
                &bytes[32..],
            ]
            .concat()),
        ),
    ];
    for (name, signature) in wrong {
        table.add(
            format!("signature {name}"),
            house.with_signature(&signature),
            "signature",
        );
    }
}

fn of_others(house: &House, table: &mut Table) {
    let good = house.good();
    let signature = good.rsplit('.').next().unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for at in [0, 31, 32, 63] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        table.add(
            format!("bit of byte {at}"),
            house.with_signature(&b64(&flipped)),
            "signature",
        );
    }
    table.add(
        "padded",
        house.with_signature(&URL_SAFE.encode(&bytes)),
        "base64",
    );
    table.add(
        "standard alphabet",
        house.with_signature(&format!("+/{}", &signature[2..])),
        "base64",
    );
    let stranger = mint(&house.other, &house.issuer, &good_claims()).unwrap();
    let (_, foreign) = stranger.expose().rsplit_once('.').unwrap();
    table.add("another key's", house.with_signature(foreign), "signature");
    // The payload of one token with the signature of another.
    let other = house.with_payload(|p| p["tv"] = 9.into());
    let body: Vec<&str> = other.split('.').collect();
    let swapped = format!("{}.{}.{signature}", body[0], body[1]);
    table.add("of another payload", swapped, "signature");
}
