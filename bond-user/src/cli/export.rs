//! `xbond export`: prints bonds as files of another program.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use bond_common::mac::Mac;
use bond_core::{name::BondName, options};

use super::{
    ExportArgs, client,
    import::kernel::{self, Above},
    output,
};
use crate::{
    api::Endpoint,
    config::{
        Config,
        export::{self, Program, ProgramFile},
        toml,
    },
    report::json::{self, AnswerSource, Report},
    report::wording,
    sys::netlink::{KernelBond, KernelSlave, LinkInfo, Netlink},
};

/// Prints or writes a bond as files of another program: `xbond export`.
///
/// # Errors
/// The source cannot be read, the program cannot express the bond, or a file cannot be written.
pub fn export(arguments: &ExportArgs) -> Result<()> {
    let program = Program::from(arguments.program);
    let (config, remarks) = if is_path(&arguments.source) {
        (toml::read(&[PathBuf::from(&arguments.source)])?, Vec::new())
    } else {
        running(&BondName::new(arguments.source.as_str())?)?
    };
    let exported = export::write(program, &config)?;
    remarks.iter().chain(&exported.notes).for_each(output::note);
    let Some(directory) = &arguments.directory else {
        for ProgramFile { name, text, .. } in &exported.files {
            // A heading is a comment in all of these files, except before the first line of a script.
            let heading = if program == Program::Ip { String::new() } else { format!("# {name}\n") };
            output::print(&format!("{heading}{text}"));
        }
        return Ok(());
    };
    make(directory)?;
    for file in &exported.files {
        write(directory, file)?;
        output::print(&format!("{}\n", directory.join(&file.name).display()));
    }
    Ok(())
}

fn is_path(source: &str) -> bool {
    source.contains('/') || source.ends_with(".toml")
}

/// Makes a directory, if it does not exist.
///
/// # Errors
/// The directory above it does not exist, or refuses it.
fn make(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(_) if directory.is_dir() => Ok(()),
        made => made.with_context(|| wording::no_directory_possible(directory.display())),
    }
}

/// Writes a file that does not exist yet.
fn write(directory: &Path, file: &ProgramFile) -> Result<()> {
    let path = directory.join(&file.name);
    let mode = if file.is_private { 0o600 } else { 0o644 };
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)
        .with_context(|| wording::cannot_write(path.display()))?;
    new.write_all(file.text.as_bytes()).with_context(|| wording::cannot_write(path.display()))
}

/// Returns a running bond as a configuration, and what of its addresses and routes no configuration can have.
fn running(name: &BondName) -> Result<(Config, Vec<String>)> {
    let report: Report = client::request(&Endpoint::Bond.call_of(name), None)?;
    let bond = report.bonds.into_iter().find(|bond| bond.name == **name);
    let bond = bond.ok_or_else(|| anyhow!(wording::no_such_bond(name)))?;
    let Some(ifindex) = bond.ifindex.filter(|_| report.source == AnswerSource::Agent) else {
        bail!(wording::port_not_exported(name));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (links, addresses, routes) = runtime.block_on(async {
        let netlink = Netlink::open()?;
        let links = netlink.links(None).await?;
        anyhow::Ok((links, netlink.addresses_of(ifindex).await?, netlink.routes_of(ifindex).await?))
    })?;
    let link = links.iter().find(|link| link.ifindex == ifindex).cloned();
    let link = link.ok_or_else(|| anyhow!(wording::bond_interface_gone(name)))?;
    let order: Vec<_> = bond.slaves.iter().map(|slave| slave.name.clone()).collect();
    let bond = as_of_kernel(bond, link);
    let read = kernel::convert(&bond, &Above { links, addresses, routes }, &order)?;
    Ok((Config { bonds: vec![read.config], ..Config::default() }, read.remarks))
}

/// Returns a bond of the agent's report in the form in which the driver's netlink attributes are read.
fn as_of_kernel(bond: json::Bond, link: LinkInfo) -> KernelBond {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Null => None,
        serde_json::Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(serde_json::Value::as_str).collect();
            (!items.is_empty()).then(|| items.join(","))
        }
        serde_json::Value::Bool(flag) => Some(u8::from(*flag).to_string()),
        other => Some(other.to_string()),
    };
    let known = options::KEYS.iter().filter(|key| !["mode", "active_slave"].contains(key));
    let options = known.filter_map(|key| Some((*key, bond.options.get(*key).and_then(text)?))).collect();
    let slaves = bond.slaves.into_iter().map(|slave| KernelSlave {
        permanent_mac: slave.permanent_mac.parse::<Mac>().ok(),
        prio: slave.prio.unwrap_or_default(),
        queue_id: slave.queue_id,
        name: slave.name,
    });
    KernelBond { link, mode: "active-backup".to_owned(), options, slaves: slaves.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_and_one_in_a_missing_directory_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("new");
        for _ in 0..2 {
            make(&directory).unwrap();
            assert!(directory.is_dir());
        }
        let file = above.path().join("file");
        std::fs::write(&file, "").unwrap();
        for refused in [above.path().join("no/new"), file] {
            let error = make(&refused).unwrap_err().to_string();
            assert_eq!(error, wording::no_directory_possible(refused.display()));
        }
    }
}
