//! The hook of ifupdown: which commands of xbond a stanza becomes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use tempfile::TempDir;

/// A `xbond` that writes its arguments down, a line for each call. It has the bond bond9 with the slave eth9, and each bond
/// whose name is in the file `added`.
const FAKE: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$1" in
show)
    if [ "$2" = bond9 ] || grep -qx "$2" "$here/added" 2>/dev/null; then
        printf 'Slave Interface: eth9\n'
        exit 0
    fi
    exit 2 ;;
add) echo "$3" >>"$here/added" ;;
esac
for argument in "$@"; do printf '[%s]' "$argument"; done >>"$here/calls"
echo >>"$here/calls"
"#;

struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = tempfile::tempdir().unwrap();
        let fake = scene.path().join("xbond");
        fs::write(&fake, FAKE).unwrap();
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
        Self(scene)
    }

    /// Runs the hook as ifupdown does; returns its complaints.
    fn hook(&self, phase: &str, interface: &str, stanza: &[(&str, &str)]) -> Result<(), String> {
        let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/ifupdown/xbond");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.0.path().display());
        let (mode, phase) = phase.split_once(' ').unwrap();
        let mut command = Command::new("sh");
        command.arg(hook).env_clear().env("PATH", path).env("IFACE", interface);
        command.env("MODE", mode).env("PHASE", phase).env("METHOD", "static");
        command.env("XBOND_IFUPDOWN_STATE", self.0.path().join("state"));
        command.env("XBOND_IFENSLAVE", self.0.path().join("ifenslave"));
        let output = command.envs(stanza.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    fn calls(&self) -> String {
        let path = self.0.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls
    }
}

const STANZA: &[(&str, &str)] = &[
    ("IF_BOND_SLAVES", "eth0 eth1"),
    ("IF_BOND_MODE", "active-backup"),
    ("IF_BOND_MIIMON", "100"),
    ("IF_BOND_PRIMARY", "eth1 eth0"),
    ("IF_BOND_ARP_IP_TARGET", "192.0.2.1  192.0.2.2"),
    ("IF_ADDRESS", "192.0.2.10"),
];

#[test]
fn a_stanza_with_slaves_becomes_a_bond_until_it_is_down() {
    let scene = Scene::new();
    scene.hook("start pre-up", "bond0", STANZA).unwrap();
    let expected = "[add][--bond][bond0][--slave][eth0][--slave][eth1][-o][arp_ip_target=192.0.2.1,192.0.2.2]\
                    [-o][miimon=100][-o][primary=eth1]\n";
    assert_eq!(scene.calls(), expected);
    // The bond exists already.
    scene.hook("start pre-up", "bond0", STANZA).unwrap();
    scene.hook("start post-up", "bond0", STANZA).unwrap();
    scene.hook("stop pre-down", "bond0", STANZA).unwrap();
    assert_eq!(scene.calls(), "");
    scene.hook("stop post-down", "bond0", STANZA).unwrap();
    assert_eq!(scene.calls(), "[down][bond0]\n");
}

#[test]
fn a_bond_of_the_agents_files_is_left_alone() {
    let scene = Scene::new();
    scene.hook("start pre-up", "bond9", STANZA).unwrap();
    scene.hook("stop post-down", "bond9", STANZA).unwrap();
    assert_eq!(scene.calls(), "");
}

#[test]
fn a_slave_joins_its_master_once() {
    let scene = Scene::new();
    let master = |name| [("IF_BOND_MASTER", name)];
    scene.hook("start pre-up", "eth0", &master("bond9")).unwrap();
    assert_eq!(scene.calls(), "[add-slave][bond9][eth0]\n");
    scene.hook("start pre-up", "eth9", &master("bond9")).unwrap();
    assert_eq!(scene.calls(), "");
    let error = scene.hook("start pre-up", "eth0", &master("bond7")).unwrap_err();
    assert_eq!(error, "xbond: eth0: bond-master bond7: the agent has no such bond; ifup bond7 first\n");
}

#[test]
fn other_modes_and_other_interfaces_are_not_xbonds() {
    let scene = Scene::new();
    for mode in [None, Some("802.3ad"), Some("0")] {
        let mode = mode.map(|mode| ("IF_BOND_MODE", mode));
        let stanza: Vec<_> = [("IF_BOND_SLAVES", "eth0")].into_iter().chain(mode).collect();
        let error = scene.hook("start pre-up", "bond0", &stanza).unwrap_err();
        assert!(error.contains("xbond has active-backup only"), "{error}");
    }
    scene.hook("start pre-up", "eth5", &[("IF_ADDRESS", "192.0.2.1")]).unwrap();
    scene.hook("stop post-down", "eth5", &[]).unwrap();
    assert_eq!(scene.calls(), "");
    // A value is one argument, whatever it contains.
    let evil =
        [("IF_BOND_SLAVES", "none"), ("IF_BOND_MODE", "1"), ("IF_BOND_MIIMON", "1; touch $(id) `id` *")];
    scene.hook("start pre-up", "bond0", &evil).unwrap();
    assert_eq!(scene.calls(), "[add][--bond][bond0][-o][miimon=1; touch $(id) `id` *]\n");
}

#[test]
fn ifenslave_has_precedence() {
    let scene = Scene::new();
    let ifenslave = scene.0.path().join("ifenslave");
    fs::write(&ifenslave, "").unwrap();
    fs::set_permissions(&ifenslave, fs::Permissions::from_mode(0o755)).unwrap();
    scene.hook("start pre-up", "bond0", STANZA).unwrap();
    assert_eq!(scene.calls(), "");
}
