//! Tests of receipts: when they are complete.

use std::path::Path;

use bond_core::{
    ChangedBy,
    command::{Failover, Trigger},
};

use super::*;
use crate::{report::receipt::Announcer, sys::dataplane::fake::mirror_in};

fn generations(directory: &Path) -> Vec<u32> {
    let receipts = receipts::read(&Location::at(directory), Trust::Ours).unwrap();
    receipts.iter().map(|receipt| receipt.generation).collect()
}

/// A writer of receipts in this directory, and what is on record there.
fn writer(directory: &Path) -> (ReceiptWriter, impl Fn() -> Vec<u32> + '_) {
    let mirror = Arc::new(mirror_in(directory));
    let (maps, ledger) = (Arc::clone(mirror.maps()), Arc::new(Ledger::new(mirror)));
    let writer = ReceiptWriter::new("bond0", &Location::at(directory), Feed::default(), maps, ledger);
    (writer, || generations(directory))
}

fn draft(id: u64, mac_changes: usize, is_announced: bool) -> Draft {
    Draft {
        id: FailoverId(id),
        failover: Failover {
            from: Some("enp0s8".into()),
            to: Some("enp0s9".into()),
            reason: Reason::LinkFailed,
            seen: Trigger::Miimon,
            chosen: None,
        },
        made: Made::ByDataPlane { by: ChangedBy::Guard, notified: Time::ZERO },
        switched: monotonic(),
        generation: u32::try_from(id).unwrap(),
        before: None,
        is_late: false,
        unrecorded: 0,
        mac_changes,
        is_announced,
        announced: None,
        path: None,
    }
}

const ROUND_OF_TICK: Announcement =
    Announcement { addresses: 2, rounds: Some(1), ..Announcement::by(Announcer::Kernel) };
const ROUND: Announcement = Announcement { addresses: 1, ..Announcement::by(Announcer::Agent) };

#[test]
fn a_receipt_is_written_when_everything_that_its_failover_asked_for_is_done() {
    type Step = fn(&mut ReceiptWriter);
    let announced: Step = |writer| writer.announced(monotonic(), ROUND);
    let mac: Step = |writer| writer.macs_changed(FailoverId(1), 1);
    let both_macs: Step = |writer| writer.macs_changed(FailoverId(1), 2);
    let mac_of_another: Step = |writer| writer.macs_changed(FailoverId(7), 1);
    let silenced: Step = |writer| writer.without_announcement();
    // (MAC addresses, announced?, steps, the last of which completes it)
    let table: [(usize, bool, &[Step]); 7] = [
        (0, false, &[]),
        (0, true, &[announced]),
        (0, true, &[mac_of_another, silenced]),
        (1, false, &[mac_of_another, mac]),
        (2, false, &[mac, mac]),
        (2, true, &[both_macs, announced]),
        (2, true, &[announced, mac, mac_of_another, mac]),
    ];
    for (row, (mac_changes, is_announced, steps)) in table.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, written) = writer(directory.path());
        writer.failover(draft(1, mac_changes, is_announced));
        for step in steps {
            assert_eq!((written(), writer.is_open()), (vec![], true), "row {row}");
            step(&mut writer);
        }
        assert_eq!((written(), writer.is_open()), (vec![1], false), "row {row}");
    }
}

#[test]
fn peers_are_added_to_the_receipt_of_their_failover() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, written) = writer(directory.path());
    let peers = |heard| Peers { expected: 3, heard, ..Peers::default() };
    let heard = || {
        let receipts = receipts::read(&Location::at(directory.path()), Trust::Ours).unwrap();
        receipts.iter().map(|receipt| receipt.peers.as_ref().map(|peers| peers.heard)).collect::<Vec<_>>()
    };
    writer.failover(draft(1, 0, true));
    writer.peers(FailoverId(1), peers(1));
    assert!(written().is_empty(), "it waits for the announcement");
    writer.announced(monotonic(), ROUND);
    assert_eq!(heard(), [Some(1)], "before the receipt was written");
    writer.failover(draft(2, 0, false));
    writer.peers(FailoverId(2), peers(2));
    assert_eq!(heard(), [Some(1), Some(2)], "after it was written");
    assert_eq!(writer.history().get().last.unwrap().peers, Some(Box::new(peers(2))));
    assert_eq!(writer.history().get().by_reason[&Reason::LinkFailed], 2);
    writer.peers(FailoverId(1), peers(3));
    assert_eq!(heard(), [Some(1), Some(2)], "too late");
}

/// Its directory is removed then, or another agent's.
#[test]
fn after_the_end_of_the_bond_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, written) = writer(directory.path());
    writer.failover(draft(1, 0, false));
    writer.failover(draft(2, 1, false));
    writer.close();
    assert_eq!(written(), [1, 2], "the open one, too");
    let text = || std::fs::read(directory.path().join("receipts.ndjson")).unwrap();
    let before = text();
    writer.peers(FailoverId(2), Peers { expected: 3, heard: 1, ..Peers::default() });
    writer.failover(draft(3, 0, false));
    assert!(text() == before);
    std::fs::remove_file(directory.path().join("receipts.ndjson")).unwrap();
    writer.write_receipts();
    assert_eq!((written(), writer.overdue()), (vec![], None));
}

#[test]
fn a_superseded_failover_keeps_its_steps_so_far() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, written) = writer(directory.path());
    writer.failover(draft(1, 1, true));
    writer.announced(monotonic(), ROUND);
    writer.failover(draft(2, 1, false));
    assert_eq!(written(), [1]);
    // A step of the first one does not complete the second one.
    writer.macs_changed(FailoverId(1), 1);
    assert_eq!(written(), [1]);
    writer.macs_changed(FailoverId(2), 1);
    assert_eq!(written(), [1, 2]);
    let receipts = receipts::read(&Location::at(directory.path()), Trust::Ours).unwrap();
    let steps = |receipt: &Receipt| (receipt.steps.macs_us.is_some(), receipt.announced.is_some());
    assert_eq!(receipts.iter().map(steps).collect::<Vec<_>>(), [(false, true), (true, false)]);
}

#[test]
fn a_round_of_a_tick_is_on_record_as_the_tick_reports_it() {
    const fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }
    let announced = |complete: fn(&mut ReceiptWriter, Time)| {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, written) = writer(directory.path());
        let draft = draft(1, 0, true);
        let switched = draft.switched;
        writer.failover(draft);
        // What the agent expects of it.
        writer.tick_announces(switched.saturating_add(ms(7)), ROUND);
        assert!(written().is_empty());
        assert!(writer.overdue().is_some_and(|left| left > Duration::from_secs(1)));
        complete(&mut writer, switched);
        let receipt = receipts::read(&Location::at(directory.path()), Trust::Ours).unwrap().pop();
        receipt.and_then(|receipt| Some((receipt.steps.announce_us?, receipt.announced?)))
    };
    let reported =
        announced(|writer, switched| writer.announced(switched.saturating_add(ms(9)), ROUND_OF_TICK));
    assert_eq!(reported, Some((9000, ROUND_OF_TICK)));
    assert_eq!(announced(|writer, _| writer.catch_up()), None, "it is awaited");
    let lost = announced(|writer, _| {
        let promised = writer.open.as_mut().and_then(|open| open.promised.as_mut());
        promised.unwrap().0 = Time::ZERO;
        writer.catch_up();
    });
    assert_eq!(lost, Some((7000, ROUND)));
}

#[test]
fn a_failover_that_ticks_have_announced_is_on_record_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, written) = writer(directory.path());
    let draft = draft(1, 0, true);
    let at = draft.switched.saturating_add(Time::from_millis(11));
    writer.failover(Draft { announced: Some((at, ROUND_OF_TICK)), ..draft });
    assert_eq!(written(), [1]);
    let receipt = receipts::read(&Location::at(directory.path()), Trust::Ours).unwrap().remove(0);
    assert_eq!((receipt.steps.announce_us, receipt.announced), (Some(11_000), Some(ROUND_OF_TICK)));
}
