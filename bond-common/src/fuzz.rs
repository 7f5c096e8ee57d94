//! Fuzz targets: frames, and the values of maps.
//!
//! Addition that overflows panics here, and wraps in the kernel. So times are those of machines that run for less than a
//! hundred years, and everything else is any bits.

use xbond_fuzz::{Input, target};

use crate::{
    abi::{ActiveWord, BondEntry, DeviceState, FailOverMac, MAX_SLAVES, ProbeTimes, Rank, Slot, Targets},
    behind::{BehindKey, LastSent, Tag, tags, write_reverse_arp},
    clock::{
        announce::{ClaimedRounds, RoundTimes},
        decide::{LinkTimes, Situation, decide},
        frame::ClockFrame,
        layout::{AnnounceList, ClockEntry, Preference, TickEntry},
        misdirected::{Episode, Noted, Settled},
        monitor::{self, AfterStep, Judging, MonitorEntry, MonitorState, ProbeList, Step, StepPace},
    },
    event::{DataPlaneEvent, EventRecord},
    guard::fail_over,
    mac::Mac,
    path::{
        answer::answer,
        judge::{Candidates, PathLap, choose, switched},
        layout::{PathEntry, PathHeard, PathList, PathState, of_pair, pair},
    },
    probe::{Role, hear},
    verdict::{Receive, Receiver, receive, rewritten_source, transmit},
    wire::{Frame as _, Header, payload, rewrite_destination, rewrite_source, tests::Bytes},
};

/// Nanoseconds of a time: less than a hundred years.
fn time(input: &mut Input<'_>) -> u64 {
    input.u64() >> 2
}

/// Nanoseconds of a setting: less than a day.
fn setting(input: &mut Input<'_>) -> u64 {
    input.u64() >> 18
}

fn mac(input: &mut Input<'_>) -> Mac {
    Mac::new(input.bytes())
}

fn slot(input: &mut Input<'_>) -> Slot {
    Slot::from_bits(input.u8().into())
}

fn word(input: &mut Input<'_>) -> ActiveWord {
    ActiveWord::from_bits(input.u64())
}

/// The sum of the 16-bit words of an ICMPv6 message and its addresses, which a right checksum makes 0xffff.
fn icmpv6_sum(frame: &Bytes) -> Option<u16> {
    let (ether_type, at) = payload(frame);
    let packet = frame.0.get(at..)?;
    let is_icmpv6 = u16::from_be(ether_type) == 0x86dd && *packet.get(6)? == 58;
    let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    let message = packet.get(40..)?.get(..length).filter(|_| is_icmpv6)?;
    let mut sum = length as u64 + 58;
    for pair in packet.get(8..40)?.chunks(2).chain(message.chunks(2)) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Some(sum as u16)
}

/// Checks what a rewrite did: the length stays, only addresses and the checksum change, and a right checksum stays right.
fn assert_rewritten(before: &[u8], after: &Bytes) {
    assert_eq!(before.len(), after.0.len());
    let is_right = |frame: &Bytes| icmpv6_sum(frame) == Some(0xffff);
    let before = Bytes(before.to_vec());
    assert!(!is_right(&before) || is_right(after), "a right checksum became a wrong one");
    let changed = before.0.iter().zip(&after.0).filter(|(old, new)| old != new).count();
    // The address of the header, the one of the payload, and a checksum.
    assert!(changed <= 6 + 6 + 2, "{changed} bytes changed");
}

#[test]
fn frames() {
    target("frames", |bytes| {
        let mut input = Input::new(bytes);
        let (active, at, to, host) = (word(&mut input), slot(&mut input), mac(&mut input), mac(&mut input));
        let (flags, now) = (input.u32(), time(&mut input));
        let bond = BondEntry::new(FailOverMac::Active, 7, host, 1).with_flags(flags);
        let mut targets = Targets::default();
        targets.set_ipv4(usize::from(flags as u8), input.bytes(), input.bytes());
        targets.set_ipv6(usize::from((flags >> 8) as u8), input.bytes(), input.bytes());
        let entry = PathEntry {
            nonce: input.u64(),
            targets: [pair(input.bytes(), input.bytes()), 0, 0, 0],
            list: input.u64(),
            macs: [to.to_word(); MAX_SLAVES],
            ..PathEntry::default()
        };
        let frame = Bytes(input.rest().to_vec());

        let _ = (tags(&frame, Tag::from_bits(flags)), ClockFrame::read(&frame));
        let _ = answer(&frame, &entry, at, now);
        let _ = hear(&frame, Role::of(at, active, &targets), &bond, &targets);
        let Some(header) = Header::read(&frame) else { return assert!(frame.0.len() < 14) };
        let receiver = Receiver { slot: at, host_mac: host, all_slaves_active: flags & 1 != 0 };
        let verdict = receive(active, receiver, header.destination, |mac| mac == to);
        if let Receive::Deliver(Some(to)) = verdict {
            assert!(!header.destination.is_multicast() && to == host);
        }
        let _ = rewritten_source(header.source, to, host, |mac| mac == entry.mac(at));
        for rewrite in [rewrite_source, rewrite_destination] {
            let mut copy = Bytes(frame.0.clone());
            let is_changed = rewrite(&mut copy, header, to).expect("it can be written");
            assert!(is_changed || copy.0 == frame.0);
            assert_rewritten(&frame.0, &copy);
        }
        let mut copy = Bytes(frame.0);
        let key = BehindKey::new(to, tags(&copy, Tag::NONE));
        let _ = write_reverse_arp(&mut copy, &key);
        let read: Option<[u8; 4]> = copy.read(usize::MAX - 1);
        assert_eq!(read, None);
    });
}

#[test]
fn words() {
    target("words", |bytes| {
        let mut input = Input::new(bytes);
        let (active, other, rank) = (word(&mut input), word(&mut input), Rank::from_bits(input.u64()));
        let (alive, queue, now) = (input.u16(), input.u16(), time(&mut input));
        let _ = (active.changes_since(other), transmit(active, queue, |slot| slot.bit()));
        if let Some(next) = fail_over(active, rank, |slot| alive & slot.bit() != 0) {
            assert_eq!(next.changes_since(active), Some(1));
            let new = next.active().expect("a failover has a slave");
            assert!(alive & new.bit() != 0 && Some(new) != active.active());
        }
        let turn = ClaimedRounds::from_bits(input.u64());
        let (round, wanted) = (input.u8(), input.u8());
        let times = RoundTimes { now, claimed_at: time(&mut input), interval: setting(&mut input) };
        if turn.is_due(active, wanted, times) {
            let claimed = turn.claim(active, wanted);
            assert!(claimed.is_of(active) && claimed.generation() == active.generation());
        }
        if let Some(claimed) = turn.claim_round(active, round, wanted) {
            assert!(claimed.is_of(active) && !turn.is_after(active));
        }
        let _ = (turn.skip(active), turn.is_reported());
        let sent = LastSent::new(now, active.switches());
        let _ = (sent.is_fresh(now, other.switches()), sent.has_moved(now, other.switches()));
        let _ = (of_pair(input.u64()), PathList::from_bits(input.u64()).echo(0));
        let (list, probes) = (AnnounceList::from_bits(input.u64()), ProbeList::from_bits(input.u64()));
        assert!(list.count as usize <= crate::clock::layout::ANNOUNCE_FRAMES);
        assert!(probes.count as usize <= monitor::PROBE_FRAMES);
        let rest = input.rest();
        let _ = DeviceState::parse(rest);
        let Some(record) = EventRecord::parse(rest) else { return };
        if let Some(event) = record.event()
            && !matches!(event, DataPlaneEvent::Announced(_) | DataPlaneEvent::HostMacLearned(_))
        {
            assert_eq!(EventRecord::new(record.at(), event).event(), Some(event));
        }
    });
}

#[test]
fn clock() {
    target("clock", |bytes| {
        let mut input = Input::new(bytes);
        let mut clock = ClockEntry {
            period: setting(&mut input),
            updelay: setting(&mut input),
            downdelay: setting(&mut input),
            avoided: input.u64(),
            agent_seen: time(&mut input),
            ..ClockEntry::default()
        };
        for _ in 0..4 {
            clock.preference = Preference::with(clock.preference, slot(&mut input), input.u16());
        }
        let (mut active, rank) = (word(&mut input), Rank::from_bits(input.u64()));
        let (mut links, mut tick) = (LinkTimes::default(), TickEntry::default());
        let (mut now, mut settled, mut episode) = (time(&mut input), Settled::default(), Episode::default());
        while !input.is_empty() {
            now += setting(&mut input);
            let (up, known, failed) = (input.u16(), input.u16(), input.u16());
            for slot in Slot::all() {
                let has_link = (known & slot.bit() != 0).then_some(up & slot.bit() != 0);
                links.see(slot, has_link, now);
            }
            let _ = tick.note(now, clock.period);
            settled.follow(active, now);
            if let Some(noted) = Noted::from_bits(input.u64()) {
                let _ = episode.answer(noted, now);
                let _ = (noted.key(), noted.entry());
            }
            let switched_at = time(&mut input);
            let (clock, links) = (&clock, &links);
            let at = Situation { word: active, rank, clock, links, failed, switched_at, now };
            let Some((next, _)) = decide(&at) else { continue };
            assert_eq!(next.changes_since(active), Some(1));
            if next.active() != active.active()
                && let Some(slot) = next.active()
            {
                assert!(links.seen().up & slot.bit() != 0, "a device without a link was chosen");
            }
            active = next;
        }
    });
}

#[test]
fn arp_monitor() {
    target("arp_monitor", |bytes| {
        let mut input = Input::new(bytes);
        let clock = ClockEntry { avoided: input.u64(), ..ClockEntry::default() };
        let entry = MonitorEntry {
            interval: setting(&mut input),
            missed_max: input.u8().into(),
            flags: input.u8().into(),
            required: input.u64(),
            targets_since: time(&mut input),
            list: input.u64(),
            turns: input.u64(),
            first: input.u8().into(),
            merit: input.u64(),
            joined: input.u64(),
        };
        let period = setting(&mut input);
        let (mut state, mut active) = (MonitorState::default(), word(&mut input));
        let (mut now, mut tick) = (time(&mut input), 0);
        while !input.is_empty() {
            (now, tick) = (now + setting(&mut input), tick + 1 + u64::from(input.u8()));
            let (links, is_drained) = (input.u16(), input.u8() & 1 != 0);
            let pace = StepPace::new(entry.interval, period, tick, now);
            match state.step(&pace) {
                Step::Wait => continue,
                Step::Begin => {
                    state.begin_from(active, clock.avoided as u16);
                    state.begin_all(&pace, active.active());
                    continue;
                }
                Step::Judge => {}
            }
            let mut judging = Judging::new(&entry, &pace, active, &state);
            judging.hunt(links, &state);
            state.begin_judging();
            for slot in Slot::all() {
                let mut times = ProbeTimes::NEVER;
                times.note(time(&mut input), Some(input.u8().into()));
                state.hear(slot, &times, &judging);
                state.judge(slot, &judging);
            }
            let (found, up) = (state.end_judging(), state.up());
            let after =
                AfterStep { word: active, entry: &entry, clock: &clock, found, up, links, is_drained };
            if let Some((next, _)) = monitor::decide(&after) {
                assert_eq!(next.changes_since(active), Some(1));
                active = next;
            }
            if let Some(prober) = entry.next_prober(links, state.doubted(), state.turn()) {
                assert!(links & prober.bit() != 0);
                state.set_turn(Some(prober));
                state.probed(prober, now);
                state.begin(prober, now);
            }
        }
    });
}

#[test]
fn path_monitor() {
    target("path_monitor", |bytes| {
        let mut input = Input::new(bytes);
        let mut entry = PathEntry {
            interval: setting(&mut input) >> 8,
            misses: input.u8().into(),
            method: input.u64(),
            list: input.u64(),
            joined: input.u64(),
            epoch: input.u64(),
            proof: input.u64(),
            ..PathEntry::default()
        };
        let (mut state, mut active) = (PathState::default(), word(&mut input));
        let (period, rank, mut now, mut tick) =
            (setting(&mut input), Rank::from_bits(input.u64()), time(&mut input), 0);
        while !input.is_empty() {
            (now, tick) = (now + setting(&mut input), tick + 1 + u64::from(input.u8()));
            entry.epoch = entry.epoch.wrapping_add(u64::from(input.u8() == 7));
            let lap = PathLap { entry: &entry, word: active, now, tick, period };
            let Some(slave) = state.follow(&lap) else { continue };
            let heard =
                PathHeard { echo_at: time(&mut input), arp_at: time(&mut input), ..PathHeard::default() };
            state.hear(slave, &heard, &lap);
            if state.is_count_due(&lap) {
                state.take_counts(input.u64(), input.u64(), &lap);
            }
            if let Some(probes) = state.takes_probes(&heard, input.u8() & 1 != 0, &lap) {
                state.asked(u64::from(probes.echo) + u64::from(probes.arp), 0);
            }
            if state.takes_round(&lap) || state.takes_backups(&lap) {
                for slot in Slot::all() {
                    state.note_backup(slot, &heard, input.u8() & 1 != 0, (entry.proof, now));
                }
            }
            let (avoided, answered, untested) = (input.u16(), input.u16(), input.u16());
            let failed_at = &state.failed_at;
            let at = Candidates { word: active, rank, avoided, answered, untested, failed_at };
            let Some(to) = choose(&at) else {
                state.note_silence();
                continue;
            };
            let next = switched(active, to);
            assert_eq!((next.changes_since(active), next.active()), (Some(1), Some(to)));
            state.leave(slave, to, now);
            active = next;
        }
    });
}
