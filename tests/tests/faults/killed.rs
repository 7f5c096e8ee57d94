//! kill -9 at random moments, of agents that fail over, enslave, release, reload and adopt.

use super::*;

const NICS: [&str; 3] = ["nic0", "nic1", "nic2"];

/// Sends a request during which the agent may be killed.
fn ask(lab: &Lab, arguments: &[&str]) -> std::process::Child {
    let mut command = lab.host.command(xbond::binary().unwrap());
    command.args(arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.spawn().unwrap()
}

fn dropped(lab: &Lab) -> u64 {
    let of = |name: &&str| {
        let text = lab.host.ip(&format!("-json -statistics link show dev {name}")).unwrap();
        let link: serde_json::Value = serde_json::from_str(&text).unwrap();
        link[0]["stats64"]["tx"]["dropped"].as_u64().unwrap()
    };
    NICS.iter().map(of).sum()
}

/// Asserts the MAC addresses that the policy requires.
fn assert_macs(lab: &Lab, policy: &str, active: &str, what: &str) {
    let own = |name: &str| lab.mac(name).unwrap();
    let observe = || {
        let worn = NICS.map(|name| lab.host.link(name).unwrap().mac);
        (lab.host.link(BOND).unwrap().mac, worn)
    };
    let place = NICS.iter().position(|name| *name == active).unwrap();
    eventually(&format!("{what}: the MACs of {policy}"), observe, |(bond, worn)| match policy {
        "none" => worn.iter().all(|mac| mac == bond),
        "active" => worn[place] == *bond && *worn == NICS.map(own),
        _ => worn[place] == *bond && worn[0] != worn[1] && worn[1] != worn[2] && worn[0] != worn[2],
    });
}

/// Returns whether all NICs are slaves, and up.
fn are_all_up(bond: &serde_json::Value) -> bool {
    let slaves = bond["slaves"].as_array().unwrap();
    let up = slaves.iter().filter(|slave| slave["mii_status"] == "up");
    slaves.len() == NICS.len() && up.count() == NICS.len()
}

/// What the agent does when it is killed.
const DOING: [&str; 6] = ["fail over", "switch", "del-slave", "add-slave", "reload", "nothing"];

/// Makes the agent do something with the active slave, or with another one. Returns the request, if it is one.
fn begin(
    lab: &Lab,
    agent: &Xbond<'_>,
    doing: &str,
    (active, other): (&str, &str),
    change_file: impl FnOnce(),
) -> Option<std::process::Child> {
    match doing {
        "fail over" => {
            lab.cut(active, Cut::Carrier).unwrap();
            None
        }
        "switch" => Some(ask(lab, &["set", BOND, &format!("active_slave={other}")])),
        "del-slave" => Some(ask(lab, &["del-slave", BOND, other])),
        "add-slave" => {
            // An adopted bond may need this request twice.
            let _ = agent.cli(["del-slave", BOND, other]);
            Some(ask(lab, &["add-slave", BOND, other]))
        }
        "reload" => {
            change_file();
            Some(ask(lab, &["reload"]))
        }
        _ => None,
    }
}

fn kill_agents(policy: &str, kills: u64, random: &mut Random) {
    let nics = NICS.iter().zip(1..).map(|(name, last)| Nic::new(name, [2, 0, 0, 0, 1, last]));
    let lab = builder(Datapath::Tc).wire(Wire::Tap).nics(nics).build().unwrap();
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file(policy, &NICS);
    let mut agent = run(&lab, &file);
    meet(&lab);
    let traffic = traffic(&lab, 1_000);
    traffic.wait_for_more(100).unwrap();
    let mut cuts = 0;
    for number in 0..kills {
        let active = active_slave(&agent).unwrap();
        let other = NICS[random.below(3) as usize];
        let doing = DOING[random.below(DOING.len() as u64) as usize];
        let mut asked = begin(&lab, &agent, doing, (&active, other), || {
            let kept: Vec<_> = NICS.into_iter().filter(|name| *name != other).collect();
            write_file(&file, policy, &kept, "mtu = 1400\nguard = \"auto\"\n");
        });
        cuts += u64::from(doing == "fail over");
        let moment = Duration::from_micros(random.below(60_000));
        thread::sleep(moment);
        let mut log = agent.log();
        agent.signal(Signal::SIGKILL).unwrap();
        agent.wait().unwrap();
        if let Some(asked) = &mut asked {
            asked.wait().unwrap();
        }
        write_file(&file, policy, &NICS, "mtu = 1500\n");
        // One of three agents is killed during its adoption.
        if random.below(3) == 0 {
            let start = Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
            thread::sleep(Duration::from_millis(random.below(400)));
            log += &start.log();
            start.kill().unwrap();
        }
        let what = format!("{policy}, kill {number}, {doing} {other}, after {moment:?}");
        agent = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()])
            .unwrap_or_else(|error| panic!("{what}: {error:#}; the log of the one before:\n{log}"));
        lab.reconnect(&active, Cut::Carrier).unwrap();
        eventually(&what, || show(&agent), are_all_up);
        traffic.wait_for_more(100).unwrap();
        assert_macs(&lab, policy, &active_slave(&agent).unwrap(), &what);
        assert!(agent.log().contains("bond0: adopted"), "{what}: {}", agent.log());
    }
    let dropped = dropped(&lab);
    let [to_peer, to_host] = traffic.stop().unwrap();
    println!(
        "{policy}: {kills} kills, {cuts} cuts: of {} lost {} to the peer, {dropped} dropped by devices; of {} lost {} to the host",
        to_peer.sent, to_peer.lost, to_host.sent, to_host.lost
    );
    assert!(to_peer.lost <= dropped + 2 * cuts, "{policy}: {to_peer:?}");
    assert_eq!(to_peer.duplicated, 0, "{policy}");
    agent.cli(["down", BOND]).unwrap();
    agent.stop().unwrap();
    before.assert_holds(&lab.host, policy);
}

#[test]
fn none() {
    skip_if_unable!();
    let _turn = concurrently();
    kill_agents("none", asked_for("XBOND_KILLS", 25) / 3, &mut Random::new());
}

#[test]
fn active() {
    skip_if_unable!();
    let _turn = concurrently();
    kill_agents("active", asked_for("XBOND_KILLS", 25) / 3, &mut Random::new());
}

#[test]
fn follow() {
    skip_if_unable!();
    let _turn = concurrently();
    kill_agents("follow", asked_for("XBOND_KILLS", 25).div_ceil(3), &mut Random::new());
}
