//! Who may ask an agent, and who may change its bonds: root, and the members of two groups.

use std::{fmt, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    unistd::{Gid, Group},
};
use tokio::net::UnixStream;

use crate::{
    report::wording,
    {agent::AgentError, config::Writers, sys::file},
};

/// Its members may read.
const READERS: &str = "xbond";

const ROOT: u32 = 0;

/// The groups besides root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The group [`READERS`], if this machine has it.
    readers: Option<Gid>,
    writers: Option<(String, Gid)>,
}

/// Who is at the other end of a connection: the credentials that it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    uid: u32,
    groups: Vec<u32>,
}

/// Why a request was refused.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("only root may use this socket")]
    OnlyRoot,
    #[error("only root and members of group {READERS} may use this socket")]
    NotAReader,
    #[error(
        "only root may change bonds; writers in [agent] of a file, or --writers, names a group that may, too"
    )]
    OnlyRootWrites,
    #[error("only root and members of group {0} may change bonds")]
    NotAWriter(String),
}

impl Access {
    /// Reads the groups from the database of groups.
    ///
    /// # Errors
    /// There is no such group of writers, or none of its members could reach the socket.
    pub fn of(writers: Option<&Writers>) -> Result<Self, AgentError> {
        let readers = find(READERS)?;
        let Some(Writers { group, origin }) = writers else {
            return Ok(Self { readers, writers: None });
        };
        let refuse = |group: &str, why| {
            let (origin, group) = (origin.clone(), group.to_owned());
            Err(AgentError::NoSuchGroup { origin, group, why })
        };
        match (find(group)?, readers) {
            (None, _) => refuse(group, wording::NO_SUCH_GROUP),
            // The socket belongs to root, and to this group if it exists.
            (_, None) => refuse(READERS, wording::NO_GROUP_OF_READERS),
            (Some(gid), _) => Ok(Self { readers, writers: Some((group.clone(), gid)) }),
        }
    }

    /// Returns the group that may use the socket in addition to root.
    pub fn readers(&self) -> Option<Gid> {
        self.readers
    }

    /// Checks that a peer may read: root, a member of the readers' group, and every peer that may change.
    ///
    /// # Errors
    /// Why it may not.
    pub fn read(&self, peer: &Peer) -> Result<(), Denied> {
        match self.readers {
            _ if peer.uid == ROOT => Ok(()),
            Some(readers) if peer.is_in(readers) => Ok(()),
            Some(_) => self.change(peer).map_err(|_| Denied::NotAReader),
            None => Err(Denied::OnlyRoot),
        }
    }

    /// Checks that a peer may change something: root, and a member of the writers' group.
    ///
    /// # Errors
    /// Why it may not.
    pub fn change(&self, peer: &Peer) -> Result<(), Denied> {
        match &self.writers {
            _ if peer.uid == ROOT => Ok(()),
            Some((_, gid)) if peer.is_in(*gid) => Ok(()),
            Some((group, _)) => Err(Denied::NotAWriter(group.clone())),
            None => Err(Denied::OnlyRootWrites),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.writers {
            Some((group, _)) => f.write_str(&wording::writers_are(group)),
            None => f.write_str(&wording::only_root_writes()),
        }
    }
}

fn find(group: &str) -> Result<Option<Gid>, AgentError> {
    let name = group.to_owned();
    // It may be on another machine (nsswitch.conf).
    match file::within(file::WITHIN, move || Group::from_name(&name)) {
        Ok(Ok(found)) => Ok(found.map(|group| group.gid)),
        // There is no list of groups at all, as in some containers.
        Ok(Err(Errno::ENOENT | Errno::ESRCH)) => Ok(None),
        Ok(Err(error)) => Err(AgentError::Io { what: "cannot look up groups", source: error.into() }),
        Err(error) => Err(AgentError::Io { what: "cannot look up groups", source: error.into() }),
    }
}

impl Peer {
    /// Returns the user and the groups of the process at the other end (SO_PEERCRED and SO_PEERGROUPS).
    ///
    /// # Errors
    /// The kernel does not return them.
    pub fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = peer_groups(stream)?;
        groups.push(credentials.gid());
        Ok(Self { uid: credentials.uid(), groups })
    }

    fn is_in(&self, group: Gid) -> bool {
        self.groups.contains(&group.as_raw())
    }
}

/// The supplementary groups of who made the connection.
fn peer_groups(stream: &UnixStream) -> std::io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 32];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, the size of the vector's elements, and the length
        // that there is; both outlive the call.
        let result = unsafe {
            let value = groups.as_mut_ptr().cast();
            libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, value, &mut length)
        };
        let count = length as usize / size_of::<u32>();
        match Errno::result(result) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // It has said how many there are.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    #[test]
    fn access_depends_on_user_and_group() {
        let (readers, writers) = (Gid::from_raw(10), ("netadmin".to_owned(), Gid::from_raw(20)));
        let root_only = Access { readers: None, writers: None };
        let some = Access { readers: Some(readers), writers: None };
        let all = Access { readers: Some(readers), writers: Some(writers) };
        let peer = |uid, groups: &[u32]| Peer { uid, groups: groups.to_vec() };
        let (read, change) = (Access::read, Access::change);
        let not_a_writer = || Err(Denied::NotAWriter("netadmin".into()));
        type Question = fn(&Access, &Peer) -> Result<(), Denied>;
        let table: [(&Access, Peer, Question, Result<(), Denied>); 15] = [
            (&root_only, peer(0, &[0]), read, Ok(())),
            (&root_only, peer(0, &[0]), change, Ok(())),
            (&root_only, peer(1000, &[10, 20]), read, Err(Denied::OnlyRoot)),
            (&root_only, peer(1000, &[0]), change, Err(Denied::OnlyRootWrites)),
            (&some, peer(0, &[]), change, Ok(())),
            (&some, peer(1000, &[10]), read, Ok(())),
            (&some, peer(1000, &[1, 10]), change, Err(Denied::OnlyRootWrites)),
            (&some, peer(1000, &[20]), read, Err(Denied::NotAReader)),
            (&all, peer(0, &[]), read, Ok(())),
            (&all, peer(1000, &[1, 10]), read, Ok(())),
            (&all, peer(1000, &[1, 10]), change, not_a_writer()),
            (&all, peer(1000, &[20]), read, Ok(())),
            (&all, peer(1000, &[10, 20]), change, Ok(())),
            (&all, peer(1000, &[0]), read, Err(Denied::NotAReader)),
            (&all, peer(10, &[]), change, not_a_writer()),
        ];
        for (access, peer, question, answer) in table {
            assert_eq!(question(access, &peer), answer, "{access:?} {peer:?}");
        }
    }

    #[test]
    fn a_group_that_does_not_exist_is_refused() {
        let writers = Writers { group: "no-such-group".into(), origin: Origin::Flags };
        let error = Access::of(Some(&writers)).unwrap_err().to_string();
        assert_eq!(error, "command line: no-such-group: no such group");
    }

    #[tokio::test]
    async fn a_peer_has_its_own_groups() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        let mut own: Vec<_> = nix::unistd::getgroups().unwrap().into_iter().map(Gid::as_raw).collect();
        own.push(nix::unistd::getegid().as_raw());
        assert_eq!(peer.groups, own);
    }
}
