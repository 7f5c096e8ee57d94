//! Finds the offset of a field in one of the kernel's structs, by its BTF (Documentation/bpf/btf.rst).
//!
//! The kernel describes some hundred thousand types. Only four offsets are needed, so the description is walked in
//! place and nothing is built from it.

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNCTION: u32 = 12;
/// Sizes in bytes of `struct btf_type` and `struct btf_member`.
const TYPE: usize = 12;
const MEMBER: usize = 12;

/// A BTF blob, such as the contents of /sys/kernel/btf/vmlinux.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// The offset of each type in `types`; the type 0 is void.
    starts: Vec<u32>,
}

/// `struct btf_type`
struct Type<'a> {
    name: &'a [u8],
    kind: u32,
    /// Members have bit-field sizes with their offsets.
    has_bit_fields: bool,
    /// The bytes of its members, which follow it.
    members: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Parses a blob. Returns `None` if it is not BTF, or contains types of an unknown kind, whose lengths are
    /// unknown, too.
    pub fn parse(blob: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(blob.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let field = |at| word(blob, at).map(|value| value as usize);
        let body = blob.get(field(4)?..)?;
        let part = |offset: usize, length: usize| body.get(offset..offset.checked_add(length)?);
        let mut btf = Self {
            types: part(field(8)?, field(12)?)?,
            strings: part(field(16)?, field(20)?)?,
            starts: vec![0],
        };
        let mut at = 0;
        while at < btf.types.len() {
            btf.starts.push(at as u32);
            at += TYPE + trailer(word(btf.types, at + 4)?)?;
        }
        Some(btf)
    }

    /// Returns the bytes from the start of the struct `of` to its field `name`, also if the field is in an anonymous
    /// struct or union. Returns `None` if there is no such field, or it is a bit-field.
    pub fn offset(&self, of: &str, name: &str) -> Option<u32> {
        let found = self.at(self.id(STRUCT, of)?)?;
        self.offset_in(&found, name.as_bytes(), NESTED_AT_MOST)
    }

    /// Returns the number of a struct.
    pub fn structure(&self, name: &str) -> Option<u32> {
        self.id(STRUCT, name).map(|id| id as u32)
    }

    /// Returns the number of a function.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.id(FUNCTION, name).map(|id| id as u32)
    }

    fn id(&self, kind: u32, name: &str) -> Option<usize> {
        let is_it = |found: Type<'_>| found.kind == kind && found.name == name.as_bytes();
        (1..self.starts.len()).find(|&id| self.at(id).is_some_and(is_it))
    }

    fn offset_in(&self, of: &Type<'_>, wanted: &[u8], depth: u32) -> Option<u32> {
        of.members.chunks_exact(MEMBER).find_map(|member| {
            let bits = word(member, 8)?;
            let (bits, is_bit_field) =
                if of.has_bit_fields { (bits & 0xff_ffff, bits >> 24 != 0) } else { (bits, false) };
            let name = self.string(word(member, 0)?)?;
            let inside = if name == wanted && !is_bit_field {
                0
            } else if name.is_empty() && depth > 0 {
                let nested = self.at(word(member, 4)? as usize)?;
                self.offset_in(&nested, wanted, depth - 1)?
            } else {
                return None;
            };
            Some(bits / 8 + inside)
        })
    }

    /// Returns a type; structs and unions have their members, other types have none.
    fn at(&self, id: usize) -> Option<Type<'a>> {
        let at = *self.starts.get(id).filter(|_| id > 0)? as usize;
        let info = word(self.types, at + 4)?;
        let kind = kind(info);
        let length = if matches!(kind, STRUCT | UNION) { trailer(info)? } else { 0 };
        Some(Type {
            name: self.string(word(self.types, at)?)?,
            kind,
            has_bit_fields: info >> 31 != 0,
            members: self.types.get(at + TYPE..at + TYPE + length)?,
        })
    }

    fn string(&self, at: u32) -> Option<&'a [u8]> {
        self.strings.get(at as usize..)?.split(|&byte| byte == 0).next()
    }
}

/// The kernel nests anonymous structs a few levels deep; a blob that refers to itself must not cause an endless loop.
const NESTED_AT_MOST: u32 = 16;

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Returns the bytes that follow a `struct btf_type`; `None` for an unknown kind.
fn trailer(info: u32) -> Option<usize> {
    let vlen = (info & 0xffff) as usize;
    Some(match kind(info) {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // ARRAY
        3 => 12,
        STRUCT | UNION => vlen * MEMBER,
        // ENUM, FUNC_PROTO
        6 | 13 => vlen * 8,
        // DATASEC, ENUM64
        15 | 19 => vlen * 12,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct outer { int a; struct { int b; union { int c; int d; }; }; int bits:3; int e; } with an int, an
    /// enum and a pointer before it.
    fn blob() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0d\0bits\0e\0";
        let name = |wanted: &str| {
            let wanted = [&[0], wanted.as_bytes(), &[0]].concat();
            strings.windows(wanted.len()).position(|window| window == wanted).map_or(0, |at| at as u32 + 1)
        };
        let mut types = Vec::new();
        let info = |kind: u32, vlen: u32| kind << 24 | vlen;
        types.extend([name("int"), info(1, 0), 4, 32]); // 1
        types.extend([0, info(6, 2), 4, 0, 1, 0, 2]); // 2: enum of two
        types.extend([0, info(2, 0), 1]); // 3: pointer
        types.extend([0, info(5, 2), 4, name("c"), 1, 0, name("d"), 1, 0]); // 4: union
        types.extend([0, info(4, 2), 8, name("b"), 1, 0, 0, 4, 32]); // 5: struct
        types.extend([name("outer"), info(4, 4) | 1 << 31, 20]); // 6
        types.extend([name("a"), 1, 0, 0, 5, 32, name("bits"), 1, 3 << 24 | 96, name("e"), 1, 128]);
        types.extend([name("e"), info(12, 0), 3]); // 7: function
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let header = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let mut blob = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        blob.extend(header.into_iter().flat_map(u32::to_ne_bytes));
        [&blob, &types[..], strings].concat()
    }

    #[test]
    fn fields_are_found_where_they_are() {
        let blob = blob();
        let btf = Btf::parse(&blob).unwrap();
        let table = [
            ("a", Some(0)),
            ("b", Some(4)),
            ("c", Some(8)),
            ("d", Some(8)),
            ("e", Some(16)),
            ("bits", None),
            ("z", None),
        ];
        for (name, offset) in table {
            assert_eq!(btf.offset("outer", name), offset, "{name}");
        }
        assert_eq!(btf.offset("int", "a"), None);
        assert_eq!((btf.structure("outer"), btf.structure("e")), (Some(6), None));
        assert_eq!((btf.function("e"), btf.function("outer")), (Some(7), None));
    }

    #[test]
    fn a_broken_blob_is_refused_or_finds_nothing() {
        let whole = blob();
        for length in 0..whole.len() {
            if let Some(btf) = Btf::parse(&whole[..length]) {
                btf.offset("outer", "e");
            }
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0xff;
            if let Some(btf) = Btf::parse(&bent) {
                btf.offset("outer", "e");
            }
        }
    }
}
