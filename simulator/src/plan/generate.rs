//! Plans from seeds.

use bond_user::sys::fake::MacChange;
use fastrand::Rng;
use nix::errno::Errno;

use super::{BondSetup, Event, KillPoint, NicSetup, Plan, Setup, Timed};

/// The shortest and the longest plan, in milliseconds.
const DURATION: [u64; 2] = [30_000, 600_000];
/// The longest time between two events, in milliseconds; most come sooner.
const BETWEEN: u64 = 20_000;
/// Bonds have at most so many slaves.
const SLAVES: usize = 4;

/// Returns the plan of a seed.
pub fn plan(seed: u64, bonds: Option<usize>) -> Plan {
    let mut rng = Rng::with_seed(seed);
    let setup = setup(&mut rng, bonds);
    let duration = rng.u64(DURATION[0]..DURATION[1]);
    let mut events = Vec::new();
    let mut at = rng.u64(500..3000);
    while at < duration {
        for event in burst(&mut rng, &setup) {
            events.push(Timed { number: events.len(), at, event });
            at += if rng.bool() { 0 } else { rng.u64(0..300) };
        }
        // Some things happen together, others into the quiet.
        at += if rng.u8(..3) == 0 { rng.u64(1..400) } else { rng.u64(400..BETWEEN) };
    }
    Plan { seed, setup, events, duration: duration.max(at) }
}

fn setup(rng: &mut Rng, bonds: Option<usize>) -> Setup {
    let count = bonds.unwrap_or_else(|| if rng.u8(..5) == 0 { rng.usize(2..6) } else { 1 });
    let mut setup = Setup {
        nics: Vec::new(),
        bonds: Vec::new(),
        has_reader: rng.u8(..8) != 0,
        usual_delay: if rng.bool() { 0 } else { rng.u64(1..80) },
        has_netkit: rng.bool(),
    };
    for _ in 0..count {
        let first = setup.nics.len();
        let slaves: Vec<_> = (first..first + rng.usize(2..=SLAVES)).collect();
        for slave in &slaves {
            let macs = match rng.u8(..24) {
                // As another than the first slave it would be refused.
                0 | 1 if *slave == first => MacChange::Never,
                0..8 => MacChange::Closed,
                _ => MacChange::Live,
            };
            setup.nics.push(NicSetup { macs, has_addresses: rng.u8(..4) == 0 });
        }
        let settings = settings(rng, &slaves);
        setup.bonds.push(BondSetup { slaves, settings });
    }
    // Spare ones, which requests may add.
    setup.nics.push(NicSetup { macs: MacChange::Live, has_addresses: true });
    setup
}

fn settings(rng: &mut Rng, slaves: &[usize]) -> Vec<(&'static str, String)> {
    let miimon = *choice(rng, &[50, 100, 100, 100, 200, 1000]);
    let mut settings = vec![("miimon", format!("{miimon}"))];
    let mut set = |key, value: String| settings.push((key, value));
    if rng.u8(..4) == 0 {
        set("updelay", format!("{}", miimon * rng.u64(1..10)));
    }
    if rng.u8(..4) == 0 {
        set("downdelay", format!("{}", miimon * rng.u64(1..5)));
    }
    let policy = *choice(rng, &["none", "none", "active", "follow"]);
    set("fail_over_mac", format!("\"{policy}\""));
    if rng.u8(..3) == 0 {
        set("primary", format!("\"nic{}\"", choice(rng, slaves)));
        set("primary_reselect", format!("\"{}\"", choice(rng, &["always", "better", "failure"])));
    }
    set("num_grat_arp", format!("{}", rng.u8(..4)));
    if rng.u8(..5) == 0 {
        set("guard", "\"off\"".to_owned());
    }
    if rng.u8(..5) == 0 {
        set("clock", "\"off\"".to_owned());
    } else if rng.u8(..3) == 0 {
        set("clock_interval", "20".to_owned());
    }
    if rng.bool() {
        set("on_exit", "\"keep\"".to_owned());
    }
    if rng.u8(..8) == 0 {
        set("damping", "{ half_life = 15, suppress = 3, reuse = 1.5, max = 60 }".to_owned());
    }
    set("addresses", "[\"198.51.100.1/24\"]".to_owned());
    settings
}

/// Events that follow each other closely.
fn burst(rng: &mut Rng, setup: &Setup) -> Vec<Event> {
    let (nic, bond) = (rng.usize(..setup.nics.len()), rng.usize(..setup.bonds.len()));
    match rng.u8(..100) {
        0..30 => flaps(rng, setup, bond),
        30..36 => vec![Event::Admin { nic, up: false }, Event::Admin { nic, up: true }],
        36..43 => vec![Event::Unplug { nic }, Event::PlugIn { nic }],
        43..47 => vec![Event::HoldRtnl { ms: rng.u64(1..4000) }],
        47..51 => vec![Event::DelayLinkEvents { by: rng.u64(1..1500), ms: rng.u64(100..8000) }],
        51..54 => vec![Event::LoseLinkEvents { ms: rng.u64(100..5000) }],
        54..64 => faults(rng),
        64..76 => ends(rng, bond),
        76..79 => vec![Event::Suspend { ms: rng.u64(1..100_000) }],
        79..81 => vec![Event::SetTimeOfDay { seconds: rng.i64(-100_000..100_000) }],
        81..83 => vec![Event::OverwriteSlave { bond, slot: rng.u8(..5) }],
        83..84 => vec![Event::OverwriteBond { bond }],
        84..86 => vec![Event::Traffic { bond, on: rng.bool() }],
        86..87 => vec![Event::Macs { nic, how: *choice(rng, &[MacChange::Closed, MacChange::Live]) }],
        _ => vec![request(rng, setup, bond)],
    }
}

fn flaps(rng: &mut Rng, setup: &Setup, bond: usize) -> Vec<Event> {
    let slaves = &setup.bonds[bond].slaves;
    let count = rng.usize(1..8);
    (0..count).map(|_| Event::Cable { nic: *choice(rng, slaves), connected: rng.bool() }).collect()
}

fn faults(rng: &mut Rng) -> Vec<Event> {
    let errnos = [Errno::ENOBUFS, Errno::EEXIST, Errno::ENODEV, Errno::EBUSY, Errno::EIO, Errno::ENOMEM];
    let count = if rng.bool() { 1 } else { rng.usize(2..5) };
    let fail = |rng: &mut Rng| Event::FailCall {
        calls: rng.u16(..60),
        errno: *choice(rng, &errnos),
        is_done: rng.bool(),
    };
    (0..count).map(|_| fail(rng)).collect()
}

fn ends(rng: &mut Rng, bond: usize) -> Vec<Event> {
    let ms = if rng.bool() { rng.u64(1..400) } else { rng.u64(400..10_000) };
    match rng.u8(..8) {
        0 => vec![Event::Terminate { ms }],
        1 => vec![Event::Stop { ms }],
        2 => vec![
            Event::Kill { point: KillPoint::Now, ms },
            Event::TearReceipts { bond, bytes: rng.u64(1..600) },
        ],
        3..6 => vec![Event::Kill { point: KillPoint::Now, ms }],
        _ => vec![Event::Kill { point: KillPoint::AtCall(rng.u16(..120)), ms }],
    }
}

fn request(rng: &mut Rng, setup: &Setup, bond: usize) -> Event {
    let slaves = &setup.bonds[bond].slaves;
    let of_bond = *choice(rng, slaves);
    let set = |key, value: String| Event::Set { bond, key, value };
    match rng.u8(..12) {
        0 | 1 => set("active_slave", format!("nic{of_bond}")),
        2 => set("primary", format!("nic{of_bond}")),
        3 => set("primary_reselect", (*choice(rng, &["always", "better", "failure"])).to_owned()),
        4 => set("num_grat_arp", format!("{}", rng.u8(..4))),
        5 => set("clock_interval", format!("{}", choice(rng, &[10, 20, 50]))),
        6 => set("mtu", format!("{}", choice(rng, &[1400, 1500, 9000]))),
        7 | 8 => Event::DelSlave { bond, nic: of_bond },
        9 => Event::AddSlave { bond, nic: rng.usize(..setup.nics.len()) },
        10 => Event::Down { bond },
        _ => Event::Reload,
    }
}

fn choice<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(..of.len())]
}
