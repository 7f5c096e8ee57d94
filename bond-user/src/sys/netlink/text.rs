//! Texts in a message about a link. The kernel accepts any bytes in aliases and nearly any in names; the library
//! rejects a message with a text that is not UTF-8, and the link would be missing.

use crate::sys::alias::Alias;

/// struct ifinfomsg
const HEADER: usize = 16;
/// struct nlattr
const ATTRIBUTE: usize = 4;
const TYPE_MASK: u16 = 0x3fff;
/// IFLA_IFNAME, QDISC, IFALIAS, PHYS_PORT_NAME, PARENT_DEV_NAME, PARENT_DEV_BUS_NAME.
const TEXTS: [u16; 6] = [3, 6, IFLA_IFALIAS, 38, 56, 57];
pub(super) const IFLA_IFALIAS: u16 = 20;
/// It contains IFLA_ALT_IFNAMEs.
const IFLA_PROP_LIST: u16 = 52;

/// Replaces bytes that are not UTF-8 in the texts of a message about a link, and keeps the length. Returns the
/// original alias.
pub(super) fn make_readable(body: &mut [u8]) -> Option<Alias> {
    let mut alias = None;
    for_each(body.get_mut(HEADER..).unwrap_or_default(), |kind, value| {
        if kind == IFLA_IFALIAS {
            alias = Alias::new(value.strip_suffix(b"\0").unwrap_or(value));
        }
        if kind == IFLA_PROP_LIST {
            for_each(value, |_, name| make_utf8(name));
        } else if TEXTS.contains(&kind) {
            make_utf8(value);
        }
    });
    alias
}

fn for_each(mut rest: &mut [u8], mut each: impl FnMut(u16, &mut [u8])) {
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = rest.get_mut(ATTRIBUTE..length) else { return };
        each(u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value);
        rest = rest.get_mut(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn make_utf8(text: &mut [u8]) {
    let mut checked = 0;
    while let Some(rest) = text.get_mut(checked..)
        && let Err(error) = str::from_utf8(rest)
    {
        checked += error.valid_up_to();
        if let Some(byte) = text.get_mut(checked) {
            *byte = b'?';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::LinkInfo;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (ATTRIBUTE + value.len()) as u16;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; HEADER], attributes.concat()].concat()
    }

    #[test]
    fn a_link_with_texts_of_any_bytes_is_read() {
        let names = attribute(53, b"alt\xff\0");
        let body = message(&[
            attribute(3, b"eth\xe9\0"),
            attribute(IFLA_IFALIAS, b"\xff\xfe B\xc3\xbcro\0"),
            attribute(IFLA_PROP_LIST | 1 << 15, &names),
            attribute(4, &1500_u32.to_ne_bytes()),
        ]);
        let link = LinkInfo::from_body(&body).unwrap();
        assert_eq!((link.name.as_str(), link.mtu), ("eth?", 1500));
        assert_eq!(link.altnames, ["alt?"]);
        assert_eq!(link.alias.unwrap().bytes(), b"\xff\xfe B\xc3\xbcro");
        let plain = message(&[attribute(3, b"eth0\0"), attribute(IFLA_IFALIAS, b"xbond:bond0\0")]);
        let link = LinkInfo::from_body(&plain).unwrap();
        assert_eq!(link.alias.unwrap().text(), "xbond:bond0");
    }

    #[test]
    fn a_truncated_message_causes_no_panic() {
        let whole = message(&[attribute(IFLA_IFALIAS, b"\xff\xfe\0"), attribute(3, b"\xe2\x82\0")]);
        for length in 0..whole.len() {
            make_readable(&mut whole[..length].to_vec());
        }
        for byte in 0..=u8::MAX {
            let mut body = whole.clone();
            body[HEADER] = byte;
            make_readable(&mut body);
        }
    }
}
