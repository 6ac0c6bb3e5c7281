//! The strict form of a signed token: three parts, canonical base64url, JSON without duplicate members (RFC 7515, RFC 8725).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use portico_contract::tokens::Denied;

/// Most nested levels of a header or payload.
const DEPTH: u8 = 8;

/// A token taken apart; nothing of it is verified.
#[derive(Debug)]
pub struct Parts<'t> {
    pub header: Map<String, Value>,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// What is signed.
    pub signed: &'t [u8],
}

/// Takes a compact serialisation apart.
pub fn split(token: &str) -> Result<Parts<'_>, Denied> {
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Denied("not_three_parts"));
    };
    let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
    // The engine refuses padding, white space, foreign letters and trailing bits that are not zero.
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied("base64"));
    Ok(Parts {
        header: object(&decode(header)?)?,
        payload: decode(payload)?,
        signature: decode(signature)?,
        signed,
    })
}

/// Reads one JSON object and nothing behind it.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, Denied> {
    let text = std::str::from_utf8(bytes).map_err(|_| Denied("utf8"))?;
    match serde_json::from_str(text) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(_) => Err(Denied("not_an_object")),
        Err(_) => Err(Denied("json")),
    }
}

/// A JSON value in which no object has a member twice and nesting is bounded.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::DeserializeSeed::deserialize(Seed(DEPTH), deserializer).map(Self)
    }
}

#[derive(Clone, Copy)]
struct Seed(u8);

impl Seed {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        self.0
            .checked_sub(1)
            .map(Self)
            .ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> de::DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("a member is there twice"));
            }
        }
        Ok(Value::Object(members))
    }
}
