//! Removes the directories of network namespaces that have ended: an agent's pins and files there have no user any
//! more, and neither bpffs nor /run deletes them.
//!
//! Unknown does not mean ended. A namespace lives as long as a process, a descriptor, a bind mount or a socket refers
//! to it, and no search finds all of those. So directories are removed only with one of these proofs:
//!
//! 1. **The witness** ([`witness`]): the kernel has unregistered `lo` of the namespace, which it does only when the
//!    namespace ends. In addition no program of a bond there is attached: a NIC that survived its namespace (the kernel
//!    returns hardware to the first namespace) still has its program, and its directory is named instead.
//! 2. **The boot**: the lock was last held before the machine was started, and cookies were reused since.
//! 3. **The devices**, for directories of an older xbond, without a witness: all links of all bonds have lost their
//!    device, and no device map has an entry. Another process can detach links, but not remove devices from the maps
//!    with it; filters of clsact have no links, so for them there is no such proof.
//! 4. **Empty**: nothing but the lock and the socket, and no process holds the lock.
//!
//! The run directory's lock is held from the last check to the last removal: no agent starts in between, and two
//! collections do not interfere. The lock file is removed last; a process that waits for it finds that it was removed
//! and creates another ([`Paths::lock`]). A killed collection leaves a state for which the next one finds a proof:
//! files are removed before pins, pins before the lock.

use std::{collections::BTreeSet, io, path::Path, time::Instant};

use bond_core::name::shell_word;

use crate::{
    report::collection::{Collection, Proof, Removed, Why},
    store::paths::{
        Boot, LOCK, Locked, PathError, Paths, SOCKET, all_pins, all_runs, boot_of, directories_in, unlink,
    },
    sys::{
        dataplane::{
            self, Hold,
            witness::{self, Testimony, WITNESS},
        },
        directory::{Directory, EntryKind, Location, Trust},
    },
};

/// How to collect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Only report what would be removed.
    pub dry_run: bool,
    /// The cookie of the caller's network namespace, which lives.
    pub here: u64,
    /// Begin with no further namespace after this time.
    pub until: Option<Instant>,
}

/// Why a namespace's directories are kept.
type Reason = (Why, String);

/// Checks the directories of all network namespaces.
///
/// # Errors
/// /run/xbond or the directory of all pins exists and cannot be read, or is not trusted.
pub fn collect(extent: Extent) -> io::Result<Collection> {
    let mut collection = Collection::new(extent.dry_run);
    let mut cookies = BTreeSet::new();
    for all in [all_runs(), all_pins()] {
        let directory = match all.open(Trust::Ours) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            answer => answer?,
        };
        for (name, kind) in directory.entries()? {
            match (cookie(&name), kind) {
                (Some(cookie), EntryKind::Directory) => drop(cookies.insert(cookie)),
                // Readable names.
                (None, EntryKind::Link) => {}
                (Some(_), _) => {
                    collection.leave(
                        directory.shown(&name).display(),
                        Why::NotOurs,
                        "it is no directory; xbond did not make it",
                    );
                }
                (None, _) => collection.leave(
                    directory.shown(&name).display(),
                    Why::NotOurs,
                    "it has no name that xbond gives; xbond did not make it",
                ),
            }
        }
    }
    for cookie in cookies {
        let paths = Paths::of(cookie);
        if extent.until.is_some_and(|until| Instant::now() >= until) {
            collection.leave(shown(&paths), Why::Later, "there was no time for it; run `xbond gc`");
            continue;
        }
        match one(&paths, cookie, extent) {
            Ok(None) => {}
            Ok(Some(removed)) => collection.removed.push(removed),
            Err((why, text)) => collection.leave(shown(&paths), why, text),
        }
    }
    Ok(collection)
}

/// Parses the cookie that a directory is named after, in the form that xbond writes: no sign, no leading zeros.
fn cookie(name: &str) -> Option<u64> {
    name.parse().ok().filter(|cookie: &u64| cookie.to_string() == name)
}

/// Returns the directory of a namespace, for messages.
fn shown(paths: &Paths) -> String {
    let path = if paths.run.kind().is_some() { paths.run.path() } else { paths.shown_pins.clone() };
    path.display().to_string()
}

/// Collects one namespace; returns `None` if another process has removed it.
fn one(paths: &Paths, cookie: u64, extent: Extent) -> Result<Option<Removed>, Reason> {
    if paths.is_claimed() {
        return Err(in_use());
    }
    // Checked before the lock is taken, for which a starting agent would wait: the kernel may answer late.
    let Some(proof) = judge(paths, cookie == extent.here)? else { return Ok(None) };
    let removed = existing(paths);
    if extent.dry_run {
        return Ok(Some(Removed { cookie, proof, paths: removed }));
    }
    let locked = paths.lock().map_err(|error| match error {
        PathError::Occupied { .. } => in_use(),
        other => (Why::Failed, other.to_string()),
    })?;
    if locked.is_new && paths.pins.kind().is_none() {
        // Another collection was faster.
        let _ = remove_run(paths, &locked);
        return Ok(None);
    }
    if !still_holds(paths, proof) {
        // It was empty, and an agent has used it since.
        if locked.is_new {
            let _ = remove_run(paths, &locked);
        }
        return Err((Why::Lives, LIVES.to_owned()));
    }
    remove(paths, &locked).map_err(|error| (Why::Failed, error.to_string()))?;
    Ok(Some(Removed { cookie, proof, paths: removed }))
}

const LIVES: &str = "its network namespace exists";

fn in_use() -> Reason {
    (Why::InUse, "an agent runs in its network namespace, or a command works there".to_owned())
}

/// Returns the existing paths of a namespace, for messages.
fn existing(paths: &Paths) -> Vec<String> {
    let pins = paths.pins.kind().map(|_| paths.shown_pins.clone());
    let run = paths.run.kind().map(|_| paths.run.path());
    pins.into_iter().chain(run).map(|path| path.display().to_string()).collect()
}

/// Opens a namespace's directory; returns `None` if it does not exist.
fn opened(place: &Location) -> Result<Option<Directory>, Reason> {
    match place.open(Trust::Ours) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((Why::NotOurs, error.to_string())),
    }
}

/// Returns the proof that allows to remove the directories, or why there is none. `None` if they are gone.
fn judge(paths: &Paths, is_here: bool) -> Result<Option<Proof>, Reason> {
    let (run, pins) = (opened(&paths.run)?, opened(&paths.pins)?);
    if run.is_none() && pins.is_none() {
        return Ok(None);
    }
    let unknown =
        |why: String| (Why::Unknown, format!("nothing proves that its network namespace has ended: {why}"));
    let testimony = match &pins {
        Some(pins) => witness::ask(pins).map_err(|error| unknown(error.to_string()))?,
        None => Testimony::None,
    };
    match testimony {
        Testimony::Lives => return Err((Why::Lives, LIVES.to_owned())),
        Testimony::Ended | Testimony::None => {}
    }
    if is_empty(run.as_ref(), pins.as_ref()).map_err(|error| unknown(error.to_string()))? {
        return Ok(Some(if testimony == Testimony::Ended { Proof::NamespaceEnded } else { Proof::Empty }));
    }
    if is_here {
        return Err((Why::Lives, LIVES.to_owned()));
    }
    let held = pins.as_ref().map_or(Ok(Vec::new()), holds).map_err(|error| unknown(error.to_string()))?;
    for hold in &held {
        match hold {
            Hold::Attached { pin, ifindex } => return Err(attached(paths, pin, *ifindex)),
            Hold::Device { map } => {
                return Err((Why::Attached, format!("a device of a bond there exists (map {map})")));
            }
            Hold::Nothing | Hold::Unknown => {}
        }
    }
    if testimony == Testimony::Ended {
        return Ok(Some(Proof::NamespaceEnded));
    }
    if held.is_empty() && run.as_ref().is_some_and(is_of_former_boot) {
        return Ok(Some(Proof::FormerBoot));
    }
    if !held.is_empty() && held.iter().all(|hold| *hold == Hold::Nothing) {
        return Ok(Some(Proof::DevicesGone));
    }
    Err(unknown(
        "it has no witness, as an older xbond leaves it, and no links of which the kernel could say it"
            .to_owned(),
    ))
}

fn attached(paths: &Paths, pin: &str, ifindex: u32) -> Reason {
    let path = shell_word(paths.shown_pins.display());
    let text = format!(
        "the program of {pin} is still attached to an interface (ifindex {ifindex}), which may have returned to the first \
         network namespace; to detach it: rm -r {path}"
    );
    (Why::Attached, text)
}

/// Returns what each pinned bond still holds.
fn holds(pins: &Directory) -> io::Result<Vec<Hold>> {
    let bonds = directories_in(pins).into_iter();
    bonds.map(|bond| dataplane::hold(&pins.directory(&bond, Trust::Ours)?)).collect()
}

/// Returns whether there is only what an agent creates before it has bonds.
fn is_empty(run: Option<&Directory>, pins: Option<&Directory>) -> io::Result<bool> {
    let has_only = |directory: Option<&Directory>, names: &[&str]| -> io::Result<bool> {
        let entries = directory.map_or(Ok(Vec::new()), Directory::entries)?;
        Ok(entries.iter().all(|(name, kind)| *kind != EntryKind::Directory && names.contains(&name.as_str())))
    };
    let temporary = format!("{SOCKET}.new");
    Ok(has_only(run, &[LOCK, SOCKET, &temporary])? && has_only(pins, &[WITNESS])?)
}

fn is_of_former_boot(run: &Directory) -> bool {
    let lock = run.file(LOCK, nix::fcntl::OFlag::O_RDONLY, Trust::Ours);
    lock.is_ok_and(|mut lock| boot_of(&mut lock) == Boot::Former)
}

/// Checks again under the lock: an end is final; an empty directory can have been used since, and a new agent makes a
/// witness.
fn still_holds(paths: &Paths, proof: Proof) -> bool {
    let Ok(pins) = opened(&paths.pins) else { return false };
    let lives = pins
        .as_ref()
        .is_some_and(|pins| !matches!(witness::ask(pins), Ok(Testimony::Ended | Testimony::None)));
    match proof {
        Proof::NamespaceEnded => true,
        Proof::FormerBoot | Proof::DevicesGone => !lives,
        Proof::Empty => {
            let run = opened(&paths.run);
            !lives && run.is_ok_and(|run| is_empty(run.as_ref(), pins.as_ref()).unwrap_or(false))
        }
    }
}

/// Removes files, then pins, and the lock last.
fn remove(paths: &Paths, locked: &Locked) -> io::Result<()> {
    for (name, _) in locked.directory.entries()? {
        if name != LOCK {
            locked.directory.remove_all(&name)?;
        }
    }
    paths.pins.remove_all()?;
    for (all, target) in [(all_pins(), &paths.shown_pins), (all_runs(), &paths.run.path())] {
        remove_links_into(&all, target);
    }
    remove_run(paths, locked)
}

/// Removes the empty run directory. Another process may wait for its lock, and create a new one when it is gone.
fn remove_run(paths: &Paths, locked: &Locked) -> io::Result<()> {
    locked.directory.remove_file(LOCK)?;
    match all_runs().open(Trust::Ours)?.remove_directory(paths.run.name()) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        answer => answer,
    }
}

/// Removes readable names that link into `target`.
fn remove_links_into(all: &Location, target: &Path) {
    let links = all.open(Trust::Ours).and_then(|directory| {
        let links = directory.entries()?.into_iter().filter(|(_, kind)| *kind == EntryKind::Link);
        Ok(links.filter_map(|(name, _)| Some((directory.linked(&name)?, name))).collect::<Vec<_>>())
    });
    for (to, name) in links.unwrap_or_default() {
        if to.starts_with(target) {
            unlink(all, &to, &name);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_cookie_as_xbond_writes_it_names_a_directory_of_ours() {
        assert_eq!(super::cookie("134"), Some(134));
        assert_eq!(super::cookie("18446744073709551615"), Some(u64::MAX));
        for name in ["", "+1", "01", "-1", "1x", "bond0", "18446744073709551616", "\u{661}"] {
            assert_eq!(super::cookie(name), None, "{name}");
        }
    }
}
