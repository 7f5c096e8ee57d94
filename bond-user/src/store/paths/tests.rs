//! Tests of the agent's directories.

use super::bpffs::BpffsFacts;
use super::*;

#[test]
fn names_with_dots_are_escaped_where_bpffs_needs_it() {
    let (paths, bond) = (Paths::of(7), BondName::new("bond0.5").unwrap());
    assert_eq!(paths.shown_pins_of(&bond), Path::new("/sys/fs/bpf/xbond/7/bond0%2E5"));
    assert_eq!(paths.pins_of(&bond).name(), "bond0%2E5");
    assert_eq!(paths.run_of(&bond).path(), Path::new("/run/xbond/7/bond0.5"));
}

#[test]
fn pins_last_where_process_1_has_their_file_system() {
    let seen = |namespaces: [Option<&str>; 2], device, device_of_init| BpffsFacts {
        by_init: false,
        namespace: namespaces[0].map(PathBuf::from),
        namespace_of_init: namespaces[1].map(PathBuf::from),
        device,
        device_of_init,
    };
    let (one, another) = (Some("mnt:[1]"), Some("mnt:[2]"));
    let table = [
        (seen([one, one], Some(7), Some(Some(7))), Lasting::Machine),
        (seen([one, one], None, None), Lasting::Machine),
        (seen([one, another], Some(7), Some(Some(7))), Lasting::Machine),
        (seen([one, another], Some(7), Some(Some(8))), Lasting::Namespace),
        (seen([one, another], Some(7), Some(None)), Lasting::Namespace),
        (seen([one, None], Some(7), Some(Some(8))), Lasting::Namespace),
        // Without a comparison the two count neither as equal nor as different.
        (seen([one, another], Some(7), None), Lasting::Unknown),
        (seen([one, None], Some(7), None), Lasting::Unknown),
        (seen([None, None], Some(7), None), Lasting::Unknown),
        (seen([one, another], None, Some(Some(7))), Lasting::Unknown),
        (seen([None, None], None, None), Lasting::Unknown),
        (BpffsFacts { by_init: true, ..seen([one, None], Some(7), None) }, Lasting::Machine),
    ];
    for (seen, expected) in table {
        assert_eq!(seen.lasting(), expected, "{seen:?}");
    }
}

#[test]
fn no_bond_has_the_name_of_an_agents_own_file() {
    for name in [LOCK, SOCKET, &format!("{SOCKET}.new")] {
        BondName::new(name).unwrap_err();
    }
}
