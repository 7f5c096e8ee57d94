//! The result of a collection, as `xbond gc` prints it.

use std::fmt;

use serde::Serialize;

/// Version of the JSON output.
const VERSION: u32 = 1;

/// What a collection did, or would do.
#[derive(Debug, Serialize)]
pub struct Collection {
    /// Version of the format.
    pub version: u32,
    /// Nothing was removed; `removed` lists what would be.
    pub dry_run: bool,
    /// Ordered by cookie.
    pub removed: Vec<Removed>,
    /// The directories that were kept.
    pub left: Vec<LeftAlone>,
}

/// The directories of a network namespace that were removed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// SO_NETNS_COOKIE
    pub cookie: u64,
    /// Why they have no user any more.
    pub proof: Proof,
    /// Their absolute paths.
    pub paths: Vec<String>,
}

/// Why the directories have no user any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The kernel has unregistered the namespace's `lo`.
    NamespaceEnded,
    /// The machine was started since, and cookies were reused.
    FormerBoot,
    /// Every link of every bond there has lost its device, and no device map has an entry.
    DevicesGone,
    /// There is no bond, and no agent.
    Empty,
}

/// A directory that was kept.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LeftAlone {
    /// Its absolute path.
    pub path: String,
    /// The kind of the reason.
    pub why: Why,
    /// The full reason.
    pub text: String,
}

/// Why a directory was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// An agent, or another command, holds its lock.
    InUse,
    /// Its network namespace exists.
    Lives,
    /// A program of a bond is still attached.
    Attached,
    /// Nothing proves that its network namespace has ended.
    Unknown,
    /// It has another owner or another type, or a name that xbond does not use.
    NotOurs,
    /// An attempt to remove it failed.
    Failed,
    /// The time limit was reached.
    Later,
}

impl Collection {
    /// Returns an empty result.
    pub fn new(dry_run: bool) -> Self {
        Self { version: VERSION, dry_run, removed: Vec::new(), left: Vec::new() }
    }

    /// Adds a directory that was kept.
    pub fn leave(&mut self, path: impl fmt::Display, why: Why, text: impl fmt::Display) {
        self.left.push(LeftAlone { path: path.to_string(), why, text: text.to_string() });
    }

    /// Returns whether a removal has failed.
    pub fn has_failed(&self) -> bool {
        self.left.iter().any(|left| left.why == Why::Failed)
    }

    /// Prints a line for each directory, and a last one with their number.
    pub fn text(&self) -> String {
        let verb = if self.dry_run { "would remove" } else { "removed" };
        let removed = self.removed.iter().flat_map(|removed| {
            removed.paths.iter().map(move |path| format!("{verb} {path}: {}\n", removed.proof))
        });
        let left = self.left.iter().map(|left| format!("left {}: {}\n", left.path, left.text));
        let counts = format!("{verb} {}, left {}\n", namespaces(self.removed.len()), self.left.len());
        removed.chain(left).chain([counts]).collect()
    }

    /// Returns the agent's log line; `None` if nothing was removed and no removal failed.
    pub fn log_line(&self) -> Option<String> {
        let failed: Vec<_> = self.left.iter().filter(|left| left.why == Why::Failed).collect();
        let removed = (!self.removed.is_empty())
            .then(|| format!("removed the directories of {}", namespaces(self.removed.len())));
        let failed = failed.first().map(|first| match failed.len() {
            1 => format!("could not remove {}: {}", first.path, first.text),
            count => {
                format!("could not remove {count} directories, the first {}: {}", first.path, first.text)
            }
        });
        let parts: Vec<_> = removed.into_iter().chain(failed).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn namespaces(count: usize) -> String {
    if count == 1 { "1 network namespace".to_owned() } else { format!("{count} network namespaces") }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NamespaceEnded => "its network namespace has ended",
            Self::FormerBoot => "it is of a former boot of this machine",
            Self::DevicesGone => "every device of its bonds is gone",
            Self::Empty => "it has no bond, and no agent runs in its network namespace",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(cookie: u64) -> Removed {
        Removed { cookie, proof: Proof::NamespaceEnded, paths: vec![format!("/run/xbond/{cookie}")] }
    }

    #[test]
    fn an_agent_logs_what_it_removed_and_what_failed_in_one_line() {
        let mut collection = Collection::new(false);
        collection.leave("/run/xbond/7", Why::Lives, "its network namespace exists");
        assert_eq!(collection.log_line(), None);
        collection.removed.extend([removed(1), removed(2)]);
        assert_eq!(collection.log_line().unwrap(), "removed the directories of 2 network namespaces");
        collection.leave("/run/xbond/3", Why::Failed, "Read-only file system");
        assert_eq!(
            collection.log_line().unwrap(),
            "removed the directories of 2 network namespaces; could not remove /run/xbond/3: Read-only file system"
        );
    }

    #[test]
    fn the_text_names_every_directory_with_its_reason() {
        let mut collection = Collection::new(true);
        collection.removed.push(removed(1));
        collection.leave("/run/xbond/7", Why::Lives, "its network namespace exists");
        assert_eq!(
            collection.text(),
            "would remove /run/xbond/1: its network namespace has ended\n\
             left /run/xbond/7: its network namespace exists\n\
             would remove 1 network namespace, left 1\n"
        );
    }
}
