//! `xbond import`: prints a TOML file of existing bonds.

pub(super) mod kernel;

use std::{fs, path::PathBuf};

use anyhow::{Result, bail};
use bond_core::{
    name::shell_word,
    options::{FailOverMac, Unmonitored},
};

use self::kernel::Above;
use super::{ImportArgs, ImportSource, PathsArgs, output};
use crate::{
    config::{
        BondConfig, Config, Note, Origin,
        dialect::{self, Dialect},
        toml,
    },
    report::wording,
    sys::netlink::{KernelBond, Netlink},
};

/// The imported configuration, and what has no equivalent.
struct Imported {
    config: Config,
    /// One sentence for each setting without equivalent.
    remarks: Vec<String>,
    /// The origin of the file, and the next steps.
    heading: Vec<String>,
}

/// Prints a bond of another program as a configuration of xbond: `xbond import`.
///
/// # Errors
/// The source cannot be read, or describes something that xbond cannot do.
pub fn import(arguments: &ImportArgs) -> Result<()> {
    let mut imported = match &arguments.source {
        ImportSource::Ifcfg(paths) => from_files(Dialect::Ifcfg, paths)?,
        ImportSource::Kernel { bond } => from_kernel(bond.as_deref())?,
        ImportSource::Networkd(paths) => from_files(Dialect::Networkd, paths)?,
        ImportSource::Netplan(paths) => from_files(Dialect::Netplan, paths)?,
        ImportSource::Nm(paths) => from_files(Dialect::Nm, paths)?,
        ImportSource::Ifupdown(paths) => from_files(Dialect::Ifupdown, paths)?,
        ImportSource::Nmstate(paths) => from_files(Dialect::Nmstate, paths)?,
        ImportSource::Team(paths) => from_files(Dialect::Team, paths)?,
        ImportSource::Dracut(paths) => from_files(Dialect::Dracut, paths)?,
    };
    imported.remarks.extend(imported.config.bonds.iter().filter_map(depends_on_order));
    for remark in &imported.remarks {
        output::note(remark);
    }
    output::print(&document(&imported));
    Ok(())
}

/// Returns a remark about a bond whose MAC address depends on which of its slaves is there first.
fn depends_on_order(bond: &BondConfig) -> Option<String> {
    let [first, _, ..] = &bond.slaves[..] else { return None };
    let has_one =
        bond.mac.is_some() || bond.port.is_some() || bond.options.fail_over_mac == FailOverMac::Active;
    let (bond, first) = (&bond.name, &first.name);
    (!has_one).then(|| wording::mac_follows_order(bond, first))
}

fn document(imported: &Imported) -> String {
    let remarks = imported.remarks.iter().map(wording::differs);
    let comments = imported.heading.iter().cloned().chain(remarks);
    // Each line of a remark stays a comment.
    let comments: String = comments.map(|line| format!("# {}\n", line.replace('\n', "\n# "))).collect();
    comments + &toml::write(&imported.config)
}

fn from_files(dialect: Dialect, arguments: &PathsArgs) -> Result<Imported> {
    let mut paths = arguments.paths.clone();
    if paths.is_empty() {
        paths = dialect::places_here(dialect);
    }
    if paths.is_empty() {
        match dialect.places() {
            [] => bail!(wording::dialect_needs_path(dialect)),
            places => bail!(wording::dialect_not_here(places.join(" or "))),
        }
    }
    let config = dialect::read(dialect, &paths)?;
    let remarks: Vec<_> = config.bonds.iter().flat_map(|bond| &bond.notes).chain(&config.notes).collect();
    let mut remarks: Vec<_> = remarks.into_iter().map(|note| (place(note), note.to_string())).collect();
    // In the order of the lines; what one file says stays together.
    remarks.sort_by(|(a, _), (b, _)| a.cmp(b));
    // An alias of YAML says the same twice.
    remarks.dedup();
    let remarks: Vec<_> = remarks.into_iter().map(|(_, remark)| remark).collect();
    if config.bonds.is_empty() {
        bail!(wording::nothing_to_import(remarks.join("; ")));
    }
    let from: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let heading = vec![wording::imported_from(from.join(", "), dialect.way_out())];
    Ok(Imported { config, remarks, heading })
}

/// Returns the file and line of a note.
fn place(note: &Note) -> Option<(PathBuf, Option<usize>)> {
    match note.origin()? {
        Origin::Flags => None,
        Origin::File { path, line } => Some((path.clone(), *line)),
    }
}

/// Keeps a bond without monitoring as it is, and returns a remark about it.
fn allow_unmonitored(bond: &mut BondConfig) -> Option<String> {
    if bond.options.is_monitored() {
        bond.allow_unmonitored = Unmonitored::Refuse;
        return None;
    }
    bond.allow_unmonitored = Unmonitored::Allow;
    Some(dialect::unmonitored(&bond.name))
}

/// The bonds of the kernel's driver, and what stands on them.
pub(super) fn kernel_bonds() -> Result<(Vec<KernelBond>, Above)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (bonds, links, addresses, routes) = runtime.block_on(async {
        let netlink = Netlink::open()?;
        let (bonds, links) = netlink.kernel_bonds().await?;
        let (addresses, mut routes) = (netlink.addresses(None).await?, Vec::new());
        for bond in &bonds {
            routes.extend(netlink.routes_of(bond.link.ifindex).await?);
        }
        anyhow::Ok((bonds, links, addresses, routes))
    })?;
    Ok((bonds, Above { links, addresses, routes }))
}

fn from_kernel(only: Option<&str>) -> Result<Imported> {
    let (bonds, above) = kernel_bonds()?;
    imported_of(&bonds, only, &above, order_of_enslaving)
}

/// Returns the names of a bond's slaves in the order of enslaving; none if sysfs does not show this namespace.
pub(super) fn order_of_enslaving(bond: &str) -> Vec<String> {
    let names = fs::read_to_string(format!("/sys/class/net/{bond}/bonding/slaves")).unwrap_or_default();
    names.split_whitespace().map(str::to_owned).collect()
}

fn imported_of(
    bonds: &[KernelBond],
    only: Option<&str>,
    above: &Above,
    order: impl Fn(&str) -> Vec<String>,
) -> Result<Imported> {
    let wanted: Vec<_> = bonds.iter().filter(|bond| only.is_none_or(|only| bond.link.name == only)).collect();
    if wanted.is_empty() {
        match only {
            Some(name) => bail!(wording::no_such_kernel_bond(name)),
            None => bail!(wording::no_kernel_bonds()),
        }
    }
    let mut config = Config::default();
    let (mut remarks, mut heading) = (Vec::new(), Vec::new());
    for bond in wanted {
        match kernel::read(bond, above, &order(&bond.link.name)) {
            Ok(read) => {
                heading.push(format!(
                    "From the kernel's {}. Before `xbond run -c` creates it, delete that one: \
                     ip link delete {}",
                    bond.link.name,
                    shell_word(&bond.link.name)
                ));
                remarks.extend(read.remarks);
                config.bonds.push(read.config);
            }
            // With several bonds, those that can be imported are.
            Err(error) if only.is_none() && bonds.len() > 1 => remarks.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    if config.bonds.is_empty() {
        bail!("{}", remarks.join("; "));
    }
    config.check()?;
    Ok(Imported { config, remarks, heading })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::lint::{HostFacts, Severity, check_text},
        sys::netlink::{Address, KernelRoute, Lifetime, recorded_bonds},
    };

    fn imported(only: Option<&str>, change: impl FnOnce(&mut Above)) -> Result<Imported> {
        let (bonds, links) = recorded_bonds();
        let bond0 = bonds[0].link.ifindex;
        let address = |text: &str| {
            let net: ipnet::IpNet = text.parse().unwrap();
            Address::new(bond0, net.addr(), net.prefix_len())
        };
        let default = KernelRoute::new(bond0, "0.0.0.0".parse().unwrap(), 0, "192.0.2.1".parse().ok());
        let mut above = Above {
            links,
            addresses: vec![address("192.0.2.10/24"), address("2001:db8::10/64")],
            routes: vec![KernelRoute { metric: 50, ..default }],
        };
        change(&mut above);
        imported_of(&bonds, only, &above, |_| vec!["eth1".into(), "eth0".into()])
    }

    /// The output of `import` reads back as the same configuration, without errors and warnings.
    #[test]
    fn a_kernel_bond_becomes_an_equivalent_file() {
        let imported = imported(Some("bond0"), |_| {}).unwrap();
        let text = document(&imported);
        assert_eq!(
            text,
            "# From the kernel's bond0. Before `xbond run -c` creates it, delete that one: ip link delete \
             bond0\n\
             # Differs: bond0.5: a vlan above bond0, which is deleted with it; create it again once xbond's bond0 is \
             up\n\
             version = 1\n\n\
             [bond.bond0]\n\
             slaves = [\"eth1\", \"eth0\"]\n\
             miimon = 100\nupdelay = 200\nnum_grat_arp = 3\nprimary = \"eth1\"\nprimary_reselect = \"failure\"\n\
             addresses = [\"192.0.2.10/24\", \"2001:db8::10/64\"]\n\
             routes = [{ metric = 50, to = \"default\", via = \"192.0.2.1\" }]\n\
             mac = \"02:00:00:00:00:77\"\nmtu = 1400\n\
             [bond.bond0.slave.eth0]\nprio = 10\nqueue_id = 3\n"
        );
        let read = toml::parse(Path::new("f"), &text).unwrap();
        let mut again = read.bonds[0].clone();
        again.origin = imported.config.bonds[0].origin.clone();
        assert_eq!(again, imported.config.bonds[0]);
        let findings = check_text(Path::new("f"), &text, &HostFacts::default()).findings;
        let bad: Vec<_> = findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
        // As in the driver: prio in addition to a primary.
        assert!(bad.iter().all(|finding| finding.id == "prio"), "{bad:#?}");
    }

    #[test]
    fn bonds_of_other_modes_are_reported() {
        let all = imported(None, |_| {}).unwrap();
        let names: Vec<_> = all.config.bonds.iter().map(|bond| bond.name.as_str()).collect();
        assert_eq!(names, ["bond0", "bond1"]);
        let refused = "bond2: mode 802.3ad: xbond does active-backup only";
        assert!(all.remarks.iter().any(|remark| remark.starts_with(refused)), "{:?}", all.remarks);
        let error = imported(Some("bond2"), |_| {}).err().unwrap().to_string();
        assert!(error.starts_with(refused), "{error}");
        let error = imported(Some("eth0"), |_| {}).err().unwrap().to_string();
        assert!(error.starts_with("eth0: no bond of the kernel's driver"), "{error}");
        let options = &all.config.bonds[1].options;
        assert_eq!(
            (options.arp_interval, options.arp_missed_max, all.config.bonds[1].mac.clone()),
            (200, 4, None)
        );
    }

    #[test]
    fn options_without_equivalent_are_reported() {
        type Change = fn(&mut Above);
        let table: [(&str, Change); 7] = [
            ("bond0: address 192.0.2.10/24 has a lifetime", |above| {
                above.addresses[0].lifetime = Some(Lifetime { preferred: 10, valid: 20 });
            }),
            ("bond0: address 192.0.2.10/24: its label bond0:1", |above| {
                above.addresses[0].label = Some("bond0:1".into());
            }),
            ("bond0: address 192.0.2.10/24: its peer 192.0.2.99", |above| {
                above.addresses[0].peer = "192.0.2.99".parse().ok();
            }),
            ("bond0: route default via 192.0.2.1 metric 50 is in table 100", |above| {
                above.routes[0].table = 100
            }),
            ("bond0: route default via 192.0.2.1 metric 50: its source address 192.0.2.10", |above| {
                above.routes[0].source = "192.0.2.10".parse().ok();
            }),
            ("bond0: route default via 192.0.2.1 metric 50 was added by a DHCP client", |above| {
                above.routes[0].protocol = 16;
            }),
            ("bond0: a port of p0", |above| {
                let p0 = above.links.iter().find(|link| link.name == "p0").unwrap().ifindex;
                above.links.iter_mut().find(|link| link.name == "bond0").unwrap().master = Some(p0);
            }),
        ];
        for (said, change) in table {
            let imported = imported(Some("bond0"), change).unwrap();
            assert!(
                imported.remarks.iter().any(|remark| remark.starts_with(said)),
                "{said}: {:?}",
                imported.remarks
            );
        }
    }

    #[test]
    fn a_bond_without_monitoring_is_imported_with_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ifcfg-bond0"), "DEVICE=bond0\nBONDING_OPTS=mode=1\n").unwrap();
        for name in ["eth0", "eth1"] {
            let text = format!("DEVICE={name}\nMASTER=bond0\nSLAVE=yes\n");
            fs::write(directory.path().join(format!("ifcfg-{name}")), text).unwrap();
        }
        let paths = vec![directory.path().to_owned()];
        let imported = from_files(Dialect::Ifcfg, &PathsArgs { paths }).unwrap();
        assert!(
            imported.remarks[0].contains("ifcfg-bond0: bond0: miimon=0: nothing monitors"),
            "{:?}",
            imported.remarks
        );
        let findings = check_text(Path::new("f"), &document(&imported), &HostFacts::default()).findings;
        let worst = findings.iter().max_by_key(|finding| finding.severity).unwrap();
        assert_eq!((worst.severity, worst.id), (Severity::Warning, "unmonitored"));
    }
}
