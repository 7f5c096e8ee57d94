//! The layout of ACTIVE and SLAVES is a promise to programs that follow a bond, for all versions 1.x. A failure here means
//! that a change of bond-common breaks them: keep the layout, and add what is new elsewhere.

use std::{path::Path, process::Command};

use bond_common::{
    abi::{ActiveWord, DeviceHandle, MAX_SLAVES, SlaveEntry, Slot},
    mac::Mac,
    names,
};
use xbond_follow::Word;

fn slot(index: u8) -> Slot {
    Slot::new(index).unwrap()
}

/// The words, as the agent and the data plane make them, and the bits that docs/reference/follow.md promises.
fn words() -> Vec<(ActiveWord, u64)> {
    let first = ActiveWord::default().next(Some(slot(0)), None, 0b11);
    let planned = first.next(Some(slot(5)), Some(slot(0)), 0b10_0001);
    let last = planned.next(Some(slot(15)), Some(slot(14)), 0xffff);
    vec![
        (ActiveWord::default(), 0),
        (first, 0x0000_0001_0003_0005),
        (planned, 0x0000_0002_0021_500b),
        (last, 0x0000_0003_ffff_fe0f),
        (last.next(None, None, 0), 0x0000_0004_0000_0010),
        (ActiveWord::from_bits(u64::MAX), u64::MAX),
    ]
}

#[test]
fn the_word_has_the_promised_bits() {
    assert_eq!((size_of::<ActiveWord>(), align_of::<ActiveWord>(), names::ACTIVE), (8, 8, "ACTIVE"));
    for (written, bits) in words() {
        assert_eq!(written.bits(), bits, "{written:?}");
        let read = Word::from_bits(bits);
        let index = |slot: Slot| u8::try_from(slot.index()).unwrap();
        assert_eq!(read.active(), written.active().map(index));
        assert_eq!(read.draining(), written.draining().map(index));
        assert_eq!(read.usable(), written.usable());
        assert_eq!(read.generation(), written.generation());
        assert_eq!(read.switches(), written.switches());
    }
}

#[test]
fn a_slave_has_the_promised_offsets() {
    assert_eq!((size_of::<SlaveEntry>(), align_of::<SlaveEntry>()), (48, 8));
    assert_eq!((names::SLAVES, MAX_SLAVES), ("SLAVES", usize::from(xbond_follow::MAX_SLAVES)));
    let entry = SlaveEntry::new(0x0102_0304, Mac::new([1, 2, 3, 4, 5, 6]), Mac::new([7, 8, 9, 10, 11, 12]))
        .with_handle(DeviceHandle::new(u64::MAX, u64::MAX))
        .with_queue_id(0xffff)
        .with_link_failure_count(u32::MAX);
    // SAFETY: plain integers without padding.
    let bytes: [u8; 48] = unsafe { std::mem::transmute(entry) };
    assert_eq!(bytes[..8], [1, 2, 3, 4, 5, 6, 0, 0], "wire MAC");
    assert_eq!(bytes[8..16], [7, 8, 9, 10, 11, 12, 0, 0], "permanent MAC");
    assert_eq!(bytes[32..36], 0x0102_0304u32.to_ne_bytes(), "ifindex");
}

/// Prints what the header reads from each word.
const PROGRAM: &str = r#"
#include "xbond_follow.h"
int main(int count, char **words) {
    for (int i = 1; i < count; i++) {
        unsigned long long word = 0;
        sscanf(words[i], "%llx", &word);
        printf("%d %d %u %u %u %d%d\n", xbond_word_active(word), xbond_word_draining(word), xbond_word_usable(word),
               xbond_word_generation(word), xbond_word_switches(word), xbond_word_delivers(word, 14, false),
               xbond_word_delivers(word, 14, true));
    }
    unsigned char values[XBOND_SLAVE_SIZE * XBOND_MAX_SLAVES] __attribute__((aligned(8))) = {0};
    values[XBOND_SLAVE_SIZE + XBOND_SLAVE_WIRE_MAC + 5] = 9;
    values[XBOND_SLAVE_SIZE + XBOND_SLAVE_IFINDEX] = 7;
    struct xbond_follow bond = { .slaves = values };
    struct xbond_slave slave;
    printf("%d", xbond_follow_slave(&bond, 0, &slave));
    printf(" %d", xbond_follow_slave(&bond, 1, &slave));
    printf(" %d %u %d\n", slave.slot, slave.ifindex, slave.mac[5]);
    printf("%d %d\n", xbond_follow_open(&bond, "a/b") == -EINVAL, xbond_follow_open_at(&bond, "/no/such") < 0);
    return 0;
}
"#;

#[test]
fn the_header_compiles_alone_and_reads_the_same() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("words.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let compile = |source: &Path, program: &Path| {
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-I"])
            .arg(here.join("include"));
        let output = cc.arg(source).arg("-o").arg(program).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    compile(&here.join("examples/active.c"), &directory.path().join("active"));
    let program = directory.path().join("words");
    compile(&source, &program);

    let mut run = Command::new(&program);
    run.args(words().iter().map(|(_, bits)| format!("{bits:x}")));
    let output = run.output().unwrap();
    assert!(output.status.success());
    let or_none = |slot: Option<u8>| slot.map_or(-1, i32::from);
    let mut expected: Vec<_> = words()
        .iter()
        .map(|(_, bits)| {
            let word = Word::from_bits(*bits);
            format!(
                "{} {} {} {} {} {}{}",
                or_none(word.active()),
                or_none(word.draining()),
                word.usable(),
                word.generation(),
                word.switches(),
                u8::from(word.delivers(14, false)),
                u8::from(word.delivers(14, true))
            )
        })
        .collect();
    expected.extend(["0 1 1 7 9".to_owned(), "1 1".to_owned()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), expected);
}
