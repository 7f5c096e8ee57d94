//! `xbond check`

use std::{collections::HashSet, fs, process::ExitCode};

use anyhow::Result;
use serde::Serialize;

use super::{CheckArgs, output};
use crate::{
    config::lint::{self, Checked, ConflictOn, Finding, HookedInterface, HostFacts, Severity},
    report::wording,
    sys::{Devices, KernelDevices, conflicts::Conflict, dataplane::Hook},
};

/// Version of the JSON output.
const VERSION: u32 = 1;

/// The output of `-j`.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    bonds: &'a [String],
    findings: &'a [Finding],
}

/// Returns an exit code for the worst finding: 0 none, 1 warnings, 2 errors.
///
/// # Errors
/// The report cannot be printed as JSON. Findings are no error.
pub fn check(arguments: &CheckArgs) -> Result<ExitCode> {
    let surroundings = HostFacts { strict_ports: strict_hypervisor(), ..HostFacts::default() };
    let mut checked = lint::check(&arguments.files, &surroundings);
    let facts = facts_of(&checked, surroundings);
    if !facts.hooked.is_empty() || !facts.conflicts.is_empty() || !facts.absent.is_empty() {
        checked = lint::check(&arguments.files, &facts);
    }
    if arguments.json {
        let report = Report { version: VERSION, bonds: &checked.bonds, findings: &checked.findings };
        output::print_json(&serde_json::to_string_pretty(&report)?);
    } else {
        output::print(&text(&checked, arguments.verbose));
    }
    let worst = checked.findings.iter().map(|finding| finding.severity).max();
    Ok(ExitCode::from(match worst {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error) => 2,
    }))
}

fn text(checked: &Checked, verbose: bool) -> String {
    let is_shown = |finding: &&Finding| {
        verbose
            || finding.severity > Severity::Note
            || [lint::ABSENT_SLAVE, lint::ABSENT_PORT].contains(&finding.id)
    };
    let shown = checked.findings.iter().filter(is_shown);
    let mut text: String = shown.map(|finding| format!("{finding}\n")).collect();
    let bad = checked.findings.iter().any(|finding| finding.severity > Severity::Note);
    if !bad {
        text.push_str(&format!("{}: ok\n", checked.bonds.join(", ")));
    }
    text
}

/// The hypervisors with ports that refuse foreign MAC addresses by default, by a part of their DMI strings.
const STRICT: [(&str, &str); 5] = [
    ("VirtualBox", "VirtualBox"),
    ("VMware", "VMware"),
    ("Virtual Machine", "Hyper-V"),
    ("Amazon EC2", "Amazon EC2"),
    ("Google Compute Engine", "Google Compute Engine"),
];

/// Returns what is known about the interfaces of these files on this machine: which are absent, what other programs have
/// at their hooks, and their conflicts. What cannot be read is left out.
fn facts_of(checked: &Checked, known: HostFacts) -> HostFacts {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return known };
    runtime.block_on(async {
        let Ok(devices) = KernelDevices::open() else { return known };
        let devices: &dyn Devices = &devices;
        let Ok(links) = devices.links(None).await else { return known };
        let names: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let slaves: HashSet<&str> = checked.slaves.iter().map(String::as_str).collect();
        let mut facts = absent(devices, checked, &names, known).await;
        for link in links.iter().filter(|link| slaves.contains(link.name.as_str())) {
            for hooked in devices.hooked(link.ifindex, &link.name).await.unwrap_or_default() {
                let by_xdp_alone = !hooked.is_bypassed(Hook::Tc);
                let text = wording::bypassed(&hooked, by_xdp_alone, "{bond}");
                facts.hooked.push(HookedInterface { interface: link.name.clone(), by_xdp_alone, text });
            }
            for conflict in devices.conflicts(link.ifindex).await.unwrap_or_default() {
                let id = match conflict {
                    Conflict::Address(_) => lint::ADDRESS_OF_SLAVE,
                    Conflict::Above { .. } => "above-slave",
                    Conflict::MplsRoutes { .. } => "slave-mpls",
                };
                let text = wording::conflict(&conflict, &link.name, "{bond}");
                facts.conflicts.push(ConflictOn { interface: link.name.clone(), id, text });
            }
        }
        facts
    })
}

/// Adds the slaves and ports that this machine does not have. An interface that is not in `names` may have the name as an
/// alternative one.
async fn absent(
    devices: &dyn Devices,
    checked: &Checked,
    names: &HashSet<&str>,
    mut facts: HostFacts,
) -> HostFacts {
    let (mut absent, mut seen) = (Vec::new(), HashSet::new());
    for name in checked.slaves.iter().chain(&checked.ports).filter(|name| seen.insert(name.as_str())) {
        if names.contains(name.as_str()) {
            continue;
        }
        if matches!(devices.link_by_name(name).await, Err(error) if error.is_gone()) {
            absent.push(name.clone());
        }
    }
    facts.is_other_machine = absent.len() == seen.len();
    facts.absent = absent;
    facts
}

/// Returns the hypervisor of this machine, if its ports pass only their own NIC's MAC address.
pub(super) fn strict_hypervisor() -> Option<&'static str> {
    let read = |name| fs::read_to_string(format!("/sys/class/dmi/id/{name}")).unwrap_or_default();
    strict(&read("sys_vendor"), &read("product_name"))
}

fn strict(vendor: &str, product: &str) -> Option<&'static str> {
    let says = |word: &&(&str, &str)| {
        product.contains(word.0) && (word.0 != "Virtual Machine" || vendor.contains("Microsoft"))
            || vendor.contains(word.0)
    };
    STRICT.iter().find(says).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::strict;

    #[test]
    fn a_strict_hypervisor_is_known_by_dmi() {
        let table = [
            ("innotek GmbH", "VirtualBox", Some("VirtualBox")),
            ("VMware, Inc.", "VMware7,1", Some("VMware")),
            ("Microsoft Corporation", "Virtual Machine", Some("Hyper-V")),
            ("Amazon EC2", "t3.micro", Some("Amazon EC2")),
            ("Google", "Google Compute Engine", Some("Google Compute Engine")),
            ("QEMU", "Standard PC (Q35 + ICH9, 2009)", None),
            ("Parallels", "Virtual Machine", None),
            ("Dell Inc.", "PowerEdge R640", None),
            ("", "", None),
        ];
        for (vendor, product, hypervisor) in table {
            assert_eq!(strict(vendor, product), hypervisor, "{vendor} {product}");
        }
    }
}
