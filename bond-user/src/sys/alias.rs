//! The alias by which the kernel knows the devices of a bond, and the group of those that have none yet.

use std::borrow::Cow;

use bond_core::name::BondName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// IFLA_GROUP of the two ends of a pair until they have their alias: "xbon". The kernel accepts no alias in the
/// message that creates an interface, but it accepts a group.
pub const UNFINISHED_PAIR: u32 = u32::from_be_bytes(*b"xbon");

/// The prefix of an alias of a bond's device.
const PREFIX: &str = "xbond:";

/// IFLA_IFALIAS, byte by byte: it may be text of any encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias(Vec<u8>);

impl Alias {
    /// Creates an alias; returns `None` if it is empty, which the kernel treats as no alias.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        Some(bytes.into()).filter(|bytes| !bytes.is_empty()).map(Self)
    }

    /// Returns the bytes of the alias.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns readable text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Returns whether it is an alias that xbond gives to the devices of a bond.
    pub fn is_mark(&self) -> bool {
        self.0.starts_with(PREFIX.as_bytes())
    }
}

/// A string, or a list of bytes if the alias is no UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

impl Serialize for Alias {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) => Written::Text(text.into()),
            Err(_) => Written::Bytes(self.0.as_slice().into()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Alias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into_owned().into_bytes(),
            Written::Bytes(bytes) => bytes.into_owned(),
        }))
    }
}

/// The alias of the devices of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(Alias);

impl Mark {
    /// Returns the mark of a bond.
    pub fn of(bond: &BondName) -> Self {
        Self(Alias(format!("{PREFIX}{bond}").into_bytes()))
    }

    /// Returns the alias that the bond's devices have.
    pub fn alias(&self) -> &Alias {
        &self.0
    }
}
