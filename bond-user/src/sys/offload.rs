//! The offloads that each datapath requires on or off.

use super::{
    Devices, SysError,
    dataplane::Hook,
    enslave::Refusal,
    ethtool::{Feature, FeatureState},
    netlink::LinkInfo,
};

/// The role of a device in a bond. An existing device that serves as the port has the role of a slave: it also
/// receives frames from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A slave.
    Slave,
    /// The end of the pair that the host uses.
    Bond,
    /// The other end.
    Port,
}

/// A feature that must be on, or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureChange {
    /// As in [`Feature::name`].
    pub name: &'static str,
    /// The state that the hook needs.
    pub on: bool,
    /// What is done if the feature is fixed.
    pub otherwise: Otherwise,
}

/// What is done if a feature cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// The interface is refused.
    Refuse,
    /// The device is set promiscuous, which switches the filter off.
    Promiscuous,
}

/// The result of [`apply`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The changed features, in their former requested states: the argument of [`restore`].
    pub found: Vec<FeatureState>,
    /// A filter is still on: the device must be set promiscuous.
    pub promiscuous: bool,
}

const fn off(name: &'static str) -> FeatureChange {
    FeatureChange { name, on: false, otherwise: Otherwise::Refuse }
}

const fn on(name: &'static str) -> FeatureChange {
    FeatureChange { name, on: true, otherwise: Otherwise::Refuse }
}

/// VLANs are above the bond, so the slave's NIC has none in its filter.
const NO_VLAN_FILTER: FeatureChange =
    FeatureChange { name: "rx-vlan-filter", on: false, otherwise: Otherwise::Promiscuous };

/// As in `bond_enslave` (`dev_disable_lro`): frames that LRO has merged cannot be forwarded.
const SLAVE_TC: &[FeatureChange] = &[off("rx-lro"), NO_VLAN_FILTER];

/// A redirect loses a tag that the NIC has extracted, and merged frames.
const SLAVE_XDP: &[FeatureChange] =
    &[off("rx-lro"), off("rx-gro-hw"), off("rx-vlan-hw-parse"), off("rx-vlan-stag-hw-parse"), NO_VLAN_FILTER];

/// Frames leave with complete checksums and with their tags inside. Segmentation depends on the checksums. GRO gives
/// a veth the NAPI without which native redirects to it vanish.
const BOND_XDP: &[FeatureChange] = &[
    off("tx-checksum-ipv4"),
    off("tx-checksum-ip-generic"),
    off("tx-checksum-ipv6"),
    off("tx-checksum-fcoe-crc"),
    off("tx-checksum-sctp"),
    off("tx-vlan-hw-insert"),
    off("tx-vlan-stag-hw-insert"),
    on("rx-gro"),
];

/// Like [`BOND_XDP`], but its XDP program brings NAPI.
const PORT_XDP: &[FeatureChange] = BOND_XDP.split_at(BOND_XDP.len() - 1).0;

/// Returns the features that must be on or off on a device of this role.
pub const fn prepare(role: Role, hook: Hook) -> &'static [FeatureChange] {
    match (hook, role) {
        (Hook::Tc, Role::Slave) => SLAVE_TC,
        (Hook::Tc, Role::Bond | Role::Port) => &[],
        (Hook::Xdp | Hook::XdpGeneric, Role::Slave) => SLAVE_XDP,
        (Hook::Xdp | Hook::XdpGeneric, Role::Bond) => BOND_XDP,
        (Hook::Xdp | Hook::XdpGeneric, Role::Port) => PORT_XDP,
    }
}

/// Returns the current states of the features that need a change and can be changed.
pub fn observe(changes: &[FeatureChange], features: &[Feature]) -> Vec<FeatureState> {
    let found = |change: &FeatureChange| {
        let feature = features.iter().find(|feature| feature.name == change.name)?;
        let changes = !feature.fixed && (feature.wanted != change.on || feature.active != change.on);
        changes.then(|| FeatureState { name: feature.name.clone(), on: feature.wanted })
    };
    changes.iter().filter_map(found).collect()
}

/// Makes the changes and checks whether they hold; if one does not that must, all are undone. A feature that the
/// kernel does not know is off.
///
/// # Errors
/// The features cannot be read or set, or a feature that the hook needs is fixed ([`Refusal::FixedFeature`]); what was
/// changed is undone then.
pub fn apply(devices: &dyn Devices, link: &LinkInfo, role: Role, hook: Hook) -> Result<Applied, SysError> {
    let changes = prepare(role, hook);
    let found = observe(changes, &devices.features(link.ifindex)?);
    let wanted: Vec<_> = found
        .iter()
        .map(|state| FeatureState { name: state.name.clone(), on: wanted(changes, state) })
        .collect();
    if !wanted.is_empty() {
        devices.request_features(link.ifindex, &wanted)?;
    }
    let features = devices.features(link.ifindex)?;
    let unmet = |change: &&FeatureChange| {
        features.iter().any(|feature| feature.name == change.name && feature.active != change.on)
    };
    let mut promiscuous = false;
    for change in changes.iter().filter(unmet) {
        match change.otherwise {
            Otherwise::Promiscuous => promiscuous = true,
            Otherwise::Refuse => {
                let name = link.name.clone();
                let first = SysError::Refused(Refusal::FixedFeature { name, change: *change, hook });
                return Err(first.after_undoing(restore(devices, link.ifindex, &found)));
            }
        }
    }
    Ok(Applied { found, promiscuous })
}

/// Asks for the features as they were found, where they are not so.
///
/// # Errors
/// The features cannot be read or set, or one did not return to its state ([`SysError::NotKept`]).
pub fn restore(devices: &dyn Devices, ifindex: u32, found: &[FeatureState]) -> Result<(), SysError> {
    let differs = |state: &&FeatureState, features: &[Feature]| {
        features.iter().any(|feature| feature.name == state.name && feature.wanted != state.on)
    };
    let features = devices.features(ifindex)?;
    let wanted: Vec<_> = found.iter().filter(|state| differs(state, &features)).cloned().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    devices.request_features(ifindex, &wanted)?;
    let features = devices.features(ifindex)?;
    match wanted.iter().find(|state| differs(state, &features)) {
        None => Ok(()),
        Some(state) => Err(SysError::NotKept {
            what: format!("turn {} {}", state.name, super::ethtool::on_off(state.on)),
            on: super::netlink::called(ifindex),
            hint: None,
        }),
    }
}

fn wanted(changes: &[FeatureChange], state: &FeatureState) -> bool {
    changes.iter().any(|change| change.name == state.name && change.on)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, veth};

    #[test]
    fn only_features_that_differ_and_are_not_fixed_are_changed() {
        let feature =
            |name: &str, active, wanted, fixed| Feature { name: name.into(), active, wanted, fixed };
        let features = [
            feature("rx-lro", true, true, false),
            feature("rx-gro-hw", false, false, false),
            // It is off because another feature is, but it was requested.
            feature("rx-vlan-hw-parse", false, true, false),
            feature("rx-vlan-filter", true, false, true),
        ];
        let state = |name: &str, on| FeatureState { name: name.into(), on };
        let slave = |datapath| observe(prepare(Role::Slave, datapath), &features);
        assert_eq!(slave(Hook::Tc), [state("rx-lro", true)]);
        assert_eq!(slave(Hook::Xdp), [state("rx-lro", true), state("rx-vlan-hw-parse", true)]);
        assert_eq!(observe(prepare(Role::Bond, Hook::Tc), &features), []);
    }

    #[test]
    fn offloads_for_xdp_are_set_and_restored() {
        in_namespace(async |devices| {
            let (bond, port) = veth(&devices, "bond0", "port0").await;
            for (link, role) in [(&bond, Role::Bond), (&port, Role::Port), (&port, Role::Slave)] {
                let before = devices.features(link.ifindex).unwrap();
                let applied = apply(&devices, link, role, Hook::Xdp).unwrap();
                assert!(!applied.found.is_empty() && !applied.promiscuous, "{role:?}: {applied:?}");
                let features = devices.features(link.ifindex).unwrap();
                for change in prepare(role, Hook::Xdp) {
                    let feature = features.iter().find(|feature| feature.name == change.name).unwrap();
                    assert_eq!(feature.active, change.on, "{role:?}: {}", change.name);
                }
                let again = apply(&devices, link, role, Hook::Xdp).unwrap();
                assert_eq!(again.found, [], "{role:?}");
                for _ in 0..2 {
                    restore(&devices, link.ifindex, &applied.found).unwrap();
                    assert_eq!(devices.features(link.ifindex).unwrap(), before, "{role:?}");
                }
            }
        });
    }

    #[test]
    fn a_fixed_feature_is_refused_and_the_others_are_restored() {
        in_namespace(async |devices| {
            let lo = devices.netlink.link_by_name("lo").await.unwrap();
            let before = devices.features(lo.ifindex).unwrap();
            let error = apply(&devices, &lo, Role::Bond, Hook::Xdp).unwrap_err();
            assert_eq!(
                error.to_string(),
                "lo: tx-checksum-ip-generic cannot be turned off, as datapath xdp needs"
            );
            assert_eq!(devices.features(lo.ifindex).unwrap(), before);
        });
    }
}
