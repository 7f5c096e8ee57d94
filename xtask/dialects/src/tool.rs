//! The programs, and what they make of files.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use tempfile::TempDir;
use xtask_common::machine;

/// A program that reads a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    Ifupdown,
    Netplan,
    Networkd,
    Nm,
}

/// What a program makes of a sample.
pub enum Made {
    /// Files in this dialect, in a directory.
    Files(&'static str, TempDir),
    /// It refuses the sample.
    Refused(String),
    /// It ignores these lines: the name of the file, a colon, the number of the line, and what is wrong.
    Ignored(Vec<String>),
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dialect())
    }
}

impl Tool {
    pub const ALL: [Self; 4] = [Self::Ifupdown, Self::Netplan, Self::Networkd, Self::Nm];

    /// Returns the word of `xbond import`, which is the name of the samples' directory, too.
    pub fn dialect(self) -> &'static str {
        match self {
            Self::Ifupdown => "ifupdown",
            Self::Netplan => "netplan",
            Self::Networkd => "networkd",
            Self::Nm => "nm",
        }
    }

    /// Returns the paths of a sample for `xbond import`: a directory, or one for each of the program's directories, by
    /// precedence.
    pub fn paths(self, sample: &Path) -> Vec<PathBuf> {
        let names = if self == Self::Netplan { ["run", "etc", "usr"] } else { ["etc", "run", "usr"] };
        let paths: Vec<_> =
            names.map(|name| sample.join(name)).into_iter().filter(|path| path.is_dir()).collect();
        if paths.is_empty() { vec![sample.to_owned()] } else { paths }
    }

    /// Has the program in `root` read a sample.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn run(self, root: &Path, sample: &Path) -> Result<Made> {
        // A directory inside of the root, which is empty.
        let place = tempfile::tempdir_in(root.join("tmp")).context("cannot make a directory in the root")?;
        let inside = Path::new("/tmp").join(place.path().file_name().unwrap_or_default());
        let run = Run { root, sample, place: place.path(), inside: &inside };
        match self {
            Self::Ifupdown => run.ifupdown(),
            Self::Netplan => run.netplan(),
            Self::Networkd => run.networkd(),
            Self::Nm => run.nm(),
        }
    }
}

/// A program, a sample and a directory, outside and inside of the root.
struct Run<'a> {
    root: &'a Path,
    sample: &'a Path,
    place: &'a Path,
    inside: &'a Path,
}

impl Run<'_> {
    fn chroot(&self, program: &str) -> Command {
        let mut command = machine::command("chroot");
        command.arg(self.root).arg(program).env("LC_ALL", "C.UTF-8").env_remove("TMPDIR");
        command
    }

    /// netplan writes files of networkd.
    fn netplan(&self) -> Result<Made> {
        for (from, to) in [("run", "run/netplan"), ("etc", "etc/netplan"), ("usr", "usr/lib/netplan")] {
            copy(&self.sample.join(from), &self.place.join(to))?;
        }
        if Tool::Netplan.paths(self.sample) == [self.sample] {
            copy(self.sample, &self.place.join("etc/netplan"))?;
        }
        let mut generate = self.chroot("netplan");
        let output = generate.args(["generate", "--root-dir"]).arg(self.inside).output()?;
        if !output.status.success() {
            return Ok(Made::Refused(reason(&output)));
        }
        let made = tempfile::tempdir()?;
        copy(&self.place.join("run/systemd/network"), made.path())?;
        Ok(Made::Files("networkd", made))
    }

    /// NetworkManager prints each profile as it has understood it.
    fn nm(&self) -> Result<Made> {
        let made = tempfile::tempdir()?;
        for path in files(self.sample)? {
            let text = fs::read(&path)?;
            let mut modify = self.chroot("nmcli");
            // The default: it changes nothing.
            modify.args(["--offline", "connection", "modify", "connection.autoconnect-retries", "-1"]);
            let output = with_input(&mut modify, &text)?;
            if output.status.success() {
                fs::write(made.path().join(path.file_name().unwrap_or_default()), &output.stdout)?;
            } else if String::from_utf8_lossy(&text).contains("type=bond") {
                return Ok(Made::Refused(reason(&output)));
            }
        }
        Ok(Made::Files("nm", made))
    }

    /// ifupdown prints the options of an interface, after it has read all files. Some name others by absolute paths.
    fn ifupdown(&self) -> Result<Made> {
        let place = self.root.join("etc/network");
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
        copy(self.sample, &place)?;
        let file = "/etc/network/interfaces";
        let mut names = Vec::new();
        for path in files_below(self.sample)? {
            let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
            let named =
                text.lines().filter_map(|line| line.trim().strip_prefix("iface ")?.split_whitespace().next());
            names.extend(named.filter(|name| *name != "lo").map(str::to_owned));
        }
        names.sort();
        names.dedup();
        let mut text = String::new();
        for name in names {
            let output = self.chroot("ifquery").args(["-i", file, &name]).output()?;
            if output.status.success() {
                text.push_str(&format!("auto {name}\niface {name} inet manual\n"));
                text.push_str(&options(&String::from_utf8_lossy(&output.stdout)));
            } else if !reason(&output).contains("unknown interface") {
                return Ok(Made::Refused(reason(&output)));
            }
        }
        let made = tempfile::tempdir()?;
        fs::write(made.path().join("interfaces"), text)?;
        Ok(Made::Files("ifupdown", made))
    }

    /// networkd logs which lines it ignores.
    fn networkd(&self) -> Result<Made> {
        let script = machine::root().join("xtask/dialects/networkd.sh");
        let mut command = machine::command("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "sh"]).arg(script).arg(self.root);
        let output =
            command.args(Tool::Networkd.paths(self.sample)).output().context("cannot run unshare")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(text.lines().any(|line| line == "Loaded."), "networkd did not load its files: {text}");
        Ok(Made::Ignored(text.lines().filter_map(ignored).collect()))
    }
}

/// Returns a line of networkd's log that names a line of a file: `/run/systemd/network/NAME:NUMBER: TEXT`.
fn ignored(line: &str) -> Option<String> {
    let rest = ["etc", "run", "usr/lib"]
        .iter()
        .find_map(|place| line.strip_prefix(&format!("/{place}/systemd/network/")))?;
    let (file, rest) = rest.split_once(':')?;
    let (number, text) = rest.split_once(": ")?;
    number.parse::<u32>().ok()?;
    Some(format!("{file}:{number} {text}"))
}

/// Returns the lines of `ifquery` as lines of a stanza. A value of several lines was given in several options.
fn options(text: &str) -> String {
    let mut lines = String::new();
    let mut last = "";
    for line in text.lines() {
        let value = match line.split_once(": ") {
            Some((key, value)) => {
                last = key;
                value
            }
            None => line,
        };
        // Networks are not compared: the stanza is one without addresses.
        if last.starts_with("bond") || ["hwaddress", "mtu", "slaves"].contains(&last) {
            lines.push_str(&format!("    {last} {value}\n"));
        }
    }
    lines
}

fn reason(output: &Output) -> String {
    let text = [&output.stderr[..], &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let line =
        text.lines().find(|line| line.to_lowercase().contains("error")).or_else(|| text.lines().next());
    line.unwrap_or_default().trim().to_owned()
}

fn with_input(command: &mut Command, input: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    // A program that refuses its input may not read it to the end.
    let _ = child.stdin.take().context("no pipe")?.write_all(input);
    Ok(child.wait_with_output()?)
}

/// Copies a directory with what is in it, readable by its owner only, as netplan wants it. Nothing if it does not exist.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    machine_run(machine::command("cp").args(["--recursive", "--no-target-directory"]).arg(from).arg(to))?;
    machine_run(machine::command("chmod").args(["--recursive", "go="]).arg(to))
}

fn machine_run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> =
        entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.retain(|path| path.extension() != Some(OsStr::new("bak")));
    files.sort();
    Ok(files)
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files(directory)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_files_are_found_in_networkds_log() {
        let line = "/run/systemd/network/bond0.netdev:8: Failed to parse MIIMonitorSec=0,1s, ignoring: Invalid argument";
        assert_eq!(
            ignored(line).unwrap(),
            "bond0.netdev:8 Failed to parse MIIMonitorSec=0,1s, ignoring: Invalid argument"
        );
        for other in ["Loaded.", "/run/systemd/network/bond0.netdev: Successfully loaded.", "/proc/1: 2: x"] {
            assert_eq!(ignored(other), None, "{other}");
        }
    }

    #[test]
    fn options_of_ifquery_are_lines_of_a_stanza() {
        let text = "address: 192.0.2.10\nbond-slaves: eth0\neth1\nbond-mode: active-backup\nmtu: 9000\n";
        let expected =
            "    bond-slaves eth0\n    bond-slaves eth1\n    bond-mode active-backup\n    mtu 9000\n";
        assert_eq!(options(text), expected);
    }
}
