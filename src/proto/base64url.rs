//! A fixed number of bytes as text in announcements: base64url without padding (RFC 4648 section 5). For `#[serde(with = "...")]`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
}

pub(super) fn deserialize<'de, D, T, const N: usize>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<[u8; N]>,
{
    let text = String::deserialize(from)?;
    let bytes: Option<[u8; N]> = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(T::from).ok_or_else(|| D::Error::custom("not base64url of the right length"))
}
