//! Files for programs that do not read the control socket: bonds as node_exporter's textfile collector reads them, and in
//! the form of /proc/net/bonding.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bond_core::name::printable;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{
    agent::{Agent, Outcome, server::query::Scope},
    config::{Config, Origin, OutputDirectory},
    report::{
        json::Report,
        metrics,
        moment::monotonic,
        procfs,
        repeats::{Repeats, left_out},
        wording,
    },
    store::published::Published,
};

/// Files are written at least so often: a reader learns from their times whether the agent runs.
const AT_LEAST: Duration = Duration::from_secs(15);

/// After an event, for those that come with it.
const PAUSE: Duration = Duration::from_millis(50);

/// After files were written because of an event: some consequences have no event.
const AFTER_EVENT: Duration = Duration::from_secs(1);

/// The directory may be on a file system that does not answer.
const WITHIN: Duration = Duration::from_secs(5);

/// How long the end of the agent waits for the removal of the files.
const AT_THE_END: Duration = Duration::from_secs(1);

/// The name of the file for node_exporter, which reads files of this extension.
const TEXTFILE: &str = "xbond.prom";

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Textfile,
    ProcFiles,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Textfile, Self::ProcFiles];

    /// Returns its key in a file.
    fn key(self) -> &'static str {
        match self {
            Self::Textfile => "textfile",
            Self::ProcFiles => "proc_files",
        }
    }

    /// Returns how each of its files begins.
    fn mark(self) -> &'static str {
        match self {
            Self::Textfile => "# HELP node_bonding_",
            Self::ProcFiles => procfs::FIRST_WORDS,
        }
    }

    /// Returns its files with their names.
    fn files(self, report: &Report) -> Vec<(String, String)> {
        match self {
            Self::Textfile => vec![(TEXTFILE.to_owned(), metrics::node_exporter_text(report.clone()))],
            Self::ProcFiles => {
                report.bonds.iter().map(|bond| (bond.name.clone(), printable(&procfs::show(bond)))).collect()
            }
        }
    }

    fn wanted_of(self, config: &Config) -> Option<&OutputDirectory> {
        match self {
            Self::Textfile => config.textfile.as_ref(),
            Self::ProcFiles => config.proc_files.as_ref(),
        }
    }
}

/// Directories for files.
pub struct Publisher {
    wanted: watch::Sender<BTreeMap<Kind, OutputDirectory>>,
    /// Whether the files of all kinds that are not wanted any more are removed.
    is_clear: watch::Sender<bool>,
    failures: Mutex<BTreeMap<Kind, String>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            wanted: watch::Sender::default(),
            is_clear: watch::Sender::new(true),
            failures: Mutex::default(),
        }
    }
}

impl Publisher {
    /// Returns the directories that a configuration names.
    pub fn of(config: &Config) -> Self {
        let publisher = Self::default();
        publisher.want(wanted(config));
        publisher
    }

    /// Returns a sentence for each kind of files that cannot be written.
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |(kind, why): (&Kind, &String)| wording::files_unwritten(kind.key(), why);
        self.failures().iter().map(sentence).collect()
    }

    fn want(&self, wanted: BTreeMap<Kind, OutputDirectory>) {
        self.is_clear.send_replace(false);
        self.wanted.send_replace(wanted);
    }

    /// Removes the files. Without an agent nothing keeps them current.
    pub async fn end(&self) {
        if self.wanted.borrow().is_empty() || self.wanted.receiver_count() == 0 {
            return;
        }
        self.want(BTreeMap::new());
        let _ = timeout(AT_THE_END, self.is_clear.subscribe().wait_for(|is_clear| *is_clear)).await;
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<Kind, String>> {
        // Poisoned or not, it is whole.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wanted(config: &Config) -> BTreeMap<Kind, OutputDirectory> {
    let of = |kind: Kind| kind.wanted_of(config).map(|directory| (kind, directory.clone()));
    Kind::ALL.into_iter().filter_map(of).collect()
}

impl Agent {
    /// Writes files where the configuration that was read again wants them. What the command line names stays.
    pub(in crate::agent) fn move_files(&self, config: &Config, outcome: &mut Outcome) {
        let now = self.published.wanted.borrow().clone();
        let mut next = wanted(config);
        for (kind, directory) in &now {
            if directory.origin == Origin::Flags {
                next.insert(*kind, directory.clone());
            }
        }
        for kind in Kind::ALL {
            let [before, after] =
                [&now, &next].map(|wanted| wanted.get(&kind).map(|directory| &directory.path));
            match (before, after) {
                (before, after) if before == after => {}
                (_, Some(path)) => outcome.changed(wording::files_written_to(kind.key(), path.display())),
                (_, None) => outcome.changed(wording::files_not_written(kind.key())),
            }
        }
        if now != next {
            self.published.want(next);
        }
    }

    /// Keeps the files current, until the agent ends.
    pub(in crate::agent) async fn publish_files(self: Arc<Self>) {
        let mut wanted = self.published.wanted.subscribe();
        let mut places = Places::default();
        loop {
            let now = wanted.borrow_and_update().clone();
            places.publish(&self, &now).await;
            if now.is_empty() {
                self.published.is_clear.send_replace(true);
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let since = Instant::now();
            tokio::select! {
                answer = wanted.changed() => if answer.is_err() { return },
                () = self.machine.feed.happened() => {
                    tokio::time::sleep(PAUSE).await;
                    places.is_late = false;
                }
                () = sleep_until(since + places.pause()) => places.is_late = true,
            }
        }
    }
}

/// What was written where.
#[derive(Default)]
struct Places {
    of: BTreeMap<Kind, Place>,
    failures: Repeats,
    /// No event has happened since the files were written last.
    is_late: bool,
}

impl Places {
    fn pause(&self) -> Duration {
        if self.is_late { AT_LEAST } else { AFTER_EVENT }
    }

    /// Writes all files, and removes those of directories that are not wanted any more.
    async fn publish(&mut self, agent: &Agent, wanted: &BTreeMap<Kind, OutputDirectory>) {
        let is_unwanted = |kind: &Kind, place: &mut Place| {
            wanted.get(kind).is_none_or(|directory| directory.path != place.directory)
        };
        for (kind, mut place) in self.of.extract_if(.., is_unwanted).collect::<Vec<_>>() {
            if let Err(error) = place.write(Vec::new()).await {
                warn!("{}: {error}", kind.key());
            }
        }
        agent.published.failures().retain(|kind, _| wanted.contains_key(kind));
        if wanted.is_empty() {
            return;
        }
        let Ok(report) = agent.report(None, Scope::Bonds).await else { return };
        for (kind, directory) in wanted {
            let place = self.of.entry(*kind).or_insert_with(|| Place::new(*kind, directory));
            let answer = place.write(kind.files(&report)).await;
            self.note(agent, *kind, answer.map_err(|error| error.to_string()));
        }
    }

    /// Logs the first of several failures, and the end of failures.
    fn note(&mut self, agent: &Agent, kind: Kind, answer: Result<(), String>) {
        let before = match &answer {
            Ok(()) => agent.published.failures().remove(&kind),
            Err(why) => agent.published.failures().insert(kind, why.clone()),
        };
        match answer {
            Ok(()) if before.is_some() => info!("{}", wording::files_written_again(kind.key())),
            Err(why) if before.as_ref() != Some(&why) => {
                if let Some(count) = self.failures.admit(monotonic(), &why) {
                    warn!("{}{}", wording::files_unwritten(kind.key(), &why), left_out(count));
                }
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// The files of one kind, and the thread that writes them at present.
struct Place {
    directory: PathBuf,
    published: Arc<Mutex<Published>>,
    /// It waits for the file system. There is never a second one, which would wait, too.
    work: Option<JoinHandle<io::Result<()>>>,
}

impl Place {
    fn new(kind: Kind, directory: &OutputDirectory) -> Self {
        let published = Published::new(directory.path.clone(), kind.mark());
        Self { directory: directory.path.clone(), published: Arc::new(Mutex::new(published)), work: None }
    }

    /// Writes the files.
    ///
    /// # Errors
    /// Those of [`Published::update`], and a file system that does not answer.
    async fn write(&mut self, files: Vec<(String, String)>) -> io::Result<()> {
        // The answer about former files does not matter.
        let _ = self.finish().await?;
        let published = Arc::clone(&self.published);
        let work = move || {
            // Poisoned or not, the names are whole.
            published.lock().unwrap_or_else(PoisonError::into_inner).update(&files)
        };
        self.work = Some(tokio::task::spawn_blocking(work));
        self.finish().await?
    }

    /// Waits for the thread.
    ///
    /// # Errors
    /// It does not end in time.
    async fn finish(&mut self) -> io::Result<io::Result<()>> {
        let Some(work) = &mut self.work else { return Ok(Ok(())) };
        let answer = timeout(WITHIN, work).await.map_err(|_| {
            let (directory, seconds) = (self.directory.display(), WITHIN.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, wording::file_system_silent(directory, seconds))
        })?;
        self.work = None;
        Ok(answer.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}
