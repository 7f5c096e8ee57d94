//! What xbond.service permits, for a process that is not started by systemd: its system calls, address families, namespaces and
//! executable memory.
//!
//! systemd refuses a call with EPERM, which a program may overlook. Here it kills the process, so that a test notices each one;
//! but for the calls that the agent is known to make although they are refused.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use seccompiler::{BpfMap, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

/// CLONE_NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS.
const NAMESPACES: u64 = 0x7e02_0000;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const FILTER: &str = "filter";

/// What a unit permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFilter {
    calls: BTreeSet<String>,
    families: BTreeSet<String>,
}

/// Returns whether this machine's systemd can say which calls its groups contain.
#[must_use]
pub fn is_known() -> bool {
    Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success())
}

impl ServiceFilter {
    /// Reads a unit. The groups of calls are those of this machine's systemd.
    ///
    /// # Errors
    /// The unit cannot be read, lacks a setting that is applied here, or names a group that systemd does not know.
    pub fn of_unit(unit: &Path) -> Result<Self> {
        let text = fs::read_to_string(unit).with_context(|| format!("cannot read {}", unit.display()))?;
        for setting in ["RestrictNamespaces=yes", "MemoryDenyWriteExecute=yes", "NoNewPrivileges=yes"] {
            ensure!(text.lines().any(|line| line == setting), "{}: no {setting}", unit.display());
        }
        let values = |key: &str| -> Vec<String> {
            let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            values.map(str::to_owned).collect()
        };
        let mut calls = BTreeSet::new();
        for line in values("SystemCallFilter") {
            let (is_removal, names) = match line.strip_prefix('~') {
                Some(names) => (true, names),
                None => (false, line.as_str()),
            };
            for name in names.split_whitespace() {
                let of_name = calls_of(name)?;
                if is_removal {
                    calls.retain(|call| !of_name.contains(call));
                } else {
                    calls.extend(of_name);
                }
            }
        }
        let families = values("RestrictAddressFamilies");
        let families = families.iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect();
        Ok(Self { calls, families })
    }

    /// Applies it to the calling thread, and to what it starts. A call that it does not permit kills the process; one in
    /// `refused` fails with EPERM, as in the service.
    ///
    /// # Errors
    /// The kernel refuses the filter.
    pub fn apply(&self, refused: &[String]) -> Result<()> {
        let mut rules = Vec::new();
        let known = |name: &str| compiled(json!([{ "syscall": name }]), "kill_process", "allow").is_ok();
        let refused: Vec<_> = refused.iter().map(String::as_str).collect();
        // systemd makes the C library use clone, whose flags can be filtered.
        let other = ["clone3"].into_iter().chain(refused.iter().copied());
        for name in self.calls.iter().map(String::as_str).chain(other).filter(|name| known(name)) {
            rules.extend(self.rules_of(name)?);
        }
        let refused: Vec<_> = refused.into_iter().map(|name| json!({ "syscall": name })).collect();
        if !refused.is_empty() {
            apply_filter(&compiled(Value::Array(refused), "allow", json!({ "errno": libc::EPERM }))?)?;
        }
        apply_filter(&compiled(
            json!([{ "syscall": "clone3" }]),
            "allow",
            json!({ "errno": libc::ENOSYS }),
        )?)?;
        // The last one: it permits no other filter.
        apply_filter(&compiled(Value::Array(rules), "kill_process", "allow")?)?;
        Ok(())
    }

    /// Returns the conditions under which a call is permitted; each one suffices.
    fn rules_of(&self, name: &str) -> Result<Vec<Value>> {
        let without = |index: u8, mask: u64| {
            let op = json!({ "masked_eq": mask });
            json!({ "syscall": name, "args": [{ "index": index, "type": "qword", "op": op, "val": 0 }] })
        };
        Ok(match name {
            "socket" | "socketpair" => {
                let family = |family: &String| -> Result<Value> {
                    let val = number_of(family)?;
                    let arguments = json!([{ "index": 0, "type": "dword", "op": "eq", "val": val }]);
                    Ok(json!({ "syscall": name, "args": arguments }))
                };
                self.families.iter().map(family).collect::<Result<_>>()?
            }
            "clone" | "unshare" => vec![without(0, NAMESPACES)],
            "setns" => vec![],
            "mmap" => vec![without(2, PROT_WRITE), without(2, PROT_EXEC)],
            "mprotect" | "pkey_mprotect" => vec![without(2, PROT_EXEC)],
            _ => vec![json!({ "syscall": name })],
        })
    }
}

/// Returns the system calls of a name of SystemCallFilter=: of a group those of its groups, too.
fn calls_of(name: &str) -> Result<BTreeSet<String>> {
    if !name.starts_with('@') {
        return Ok(BTreeSet::from([name.to_owned()]));
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let output = output.context("cannot run systemd-analyze")?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let mut calls = BTreeSet::new();
    // The first line is the group's name, and comments are its description.
    for line in String::from_utf8_lossy(&output.stdout).lines().skip(1).map(str::trim) {
        match line {
            "" => {}
            comment if comment.starts_with('#') => {}
            inner => calls.extend(calls_of(inner)?),
        }
    }
    ensure!(!calls.is_empty(), "{name}: systemd-analyze lists no system calls");
    Ok(calls)
}

fn number_of(family: &str) -> Result<u64> {
    Ok(match family {
        "AF_UNIX" => 1,
        "AF_INET" => 2,
        "AF_INET6" => 10,
        "AF_NETLINK" => 16,
        "AF_PACKET" => 17,
        other => bail!("{other}: not a family that this test knows"),
    })
}

fn compiled(rules: Value, mismatch: &str, matched: impl Into<Value>) -> Result<seccompiler::BpfProgram> {
    let filter = json!({ FILTER: {
        "mismatch_action": mismatch, "match_action": matched.into(), "filter": rules,
    } });
    let arch = TargetArch::try_from(std::env::consts::ARCH).context("no filters for this processor")?;
    let mut programs: BpfMap = compile_from_json(filter.to_string().as_bytes(), arch)?;
    programs.remove(FILTER).context("no filter was compiled")
}
