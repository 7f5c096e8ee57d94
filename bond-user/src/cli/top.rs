//! `xbond top`

use std::{
    collections::HashSet,
    io::{self, IsTerminal as _},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bond_core::name::BondName;
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        terminal,
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{TopArgs, client, output};
use crate::{
    api::{Call, Endpoint},
    report::{event::Event, json::Report, receipt::Log, text::Screen, wording},
};

/// Columns of a frame that is printed where no terminal has a width.
const WIDTH: u16 = 80;

/// After a stream of events has ended, and between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

/// The shortest time between two reports, however many events there are.
const AT_MOST: Duration = Duration::from_millis(100);

/// Later than this after its time a report is called late.
const HOLD: Duration = Duration::from_secs(2);

/// The screen is drawn at least so often.
const REDRAWN: Duration = Duration::from_secs(1);

/// What changes the screen.
enum Input {
    Report(Result<Report, String>),
    Log(Log),
    Event(Event),
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The terminal cannot be read any more.
    Gone,
}

/// Shows traffic and states, refreshed: `xbond top`.
///
/// # Errors
/// There is no agent or no such bond, or the terminal cannot be used.
pub fn top(arguments: &TopArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.once {
        return runtime.block_on(once(arguments));
    }
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        bail!(wording::no_terminal());
    }
    // What fails at first is reported on a usual terminal.
    let first = runtime.block_on(client::query(&reports(arguments)))?;
    let mut screen = Screen::default();
    screen.report(Ok(first));
    // It restores the terminal after a panic, too.
    let mut terminal = Restored(ratatui::try_init().context(wording::terminal_unusable())?);
    runtime.block_on(live(arguments, screen, &mut terminal.0))
}

/// A terminal that is restored whatever ends its use.
struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn reports(arguments: &TopArgs) -> Call {
    match &arguments.bond {
        Some(bond) => Endpoint::Bond.call_of(bond),
        None => Endpoint::Bonds.call(),
    }
}

/// Prints a frame with the rates between two reports.
async fn once(arguments: &TopArgs) -> Result<()> {
    let call = reports(arguments);
    let mut screen = Screen::default();
    screen.report(Ok(client::query(&call).await?));
    sleep(arguments.interval).await;
    let report: Report = client::query(&call).await?;
    for name in names(&report) {
        let log: Log = client::query(&Endpoint::Log.call_of(&name)).await?;
        log.receipts.into_iter().for_each(|receipt| screen.failover(receipt));
    }
    screen.report(Ok(report));
    let width =
        if io::stdout().is_terminal() { terminal::size().map_or(WIDTH, |(width, _)| width) } else { WIDTH };
    output::print(&screen.text(width));
    Ok(())
}

fn names(report: &Report) -> Vec<BondName> {
    report.bonds.iter().filter_map(|bond| BondName::new(bond.name.clone()).ok()).collect()
}

/// Draws until the administrator, or a signal, ends it.
async fn live(arguments: &TopArgs, mut screen: Screen, terminal: &mut DefaultTerminal) -> Result<()> {
    let (sender, mut inputs) = mpsc::unbounded_channel();
    let soon = Arc::new(Notify::new());
    tokio::spawn(follow_reports(reports(arguments), arguments.interval, Arc::clone(&soon), sender.clone()));
    tokio::spawn(follow_events(arguments.bond.clone(), sender.clone()));
    thread::Builder::new().name("keys".into()).spawn(move || read_keys(&sender))?;
    let mut signals = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
        signal(SignalKind::quit())?,
    ];
    let [interrupt, terminate, hangup, quit] = &mut signals;
    let mut last = Instant::now();
    loop {
        if last.elapsed() > arguments.interval + HOLD {
            let seconds = last.elapsed().as_secs();
            screen.report(Err(wording::silent_for(seconds)));
        }
        terminal.draw(|frame| screen.draw(frame.area(), frame.buffer_mut()))?;
        let input = tokio::select! {
            input = inputs.recv() => input,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = quit.recv() => return Ok(()),
            () = sleep(REDRAWN) => continue,
        };
        let Some(input) = input else { return Ok(()) };
        let mut next = Some(input);
        // All that has come is drawn at once.
        while let Some(input) = next {
            if let Input::Report(_) = input {
                last = Instant::now();
            }
            if !act(&mut screen, input, &soon) {
                return Ok(());
            }
            next = inputs.try_recv().ok();
        }
    }
}

/// Returns false at the end.
fn act(screen: &mut Screen, input: Input, soon: &Notify) -> bool {
    match input {
        Input::Report(answer) => screen.report(answer),
        Input::Log(log) => log.receipts.into_iter().for_each(|receipt| screen.failover(receipt)),
        Input::Event(event) => {
            screen.event(event);
            soon.notify_one();
        }
        Input::Resized => {}
        Input::Gone => return false,
        Input::Key(key) => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Up => screen.scroll(-1),
            KeyCode::Down => screen.scroll(1),
            KeyCode::PageUp => screen.scroll_page(-1),
            KeyCode::PageDown => screen.scroll_page(1),
            KeyCode::Home => screen.scroll(isize::MIN),
            KeyCode::End => screen.scroll(isize::MAX),
            _ => {}
        },
    }
    true
}

async fn follow_reports(
    call: Call,
    interval: Duration,
    soon: Arc<Notify>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    let mut known = HashSet::new();
    loop {
        let answer: Result<Report> = client::query(&call).await;
        let new: Vec<_> = answer.iter().flat_map(names).filter(|name| known.insert(name.clone())).collect();
        for name in new {
            // A bond that was removed since has none.
            if let Ok(log) = client::query(&Endpoint::Log.call_of(&name)).await {
                let _ = inputs.send(Input::Log(log));
            }
        }
        if inputs.send(Input::Report(answer.map_err(|error| error.to_string()))).is_err() {
            return;
        }
        sleep(AT_MOST.min(interval)).await;
        let _ = timeout(interval.saturating_sub(AT_MOST), soon.notified()).await;
    }
}

/// Follows the events of one agent after the other.
async fn follow_events(bond: Option<BondName>, inputs: mpsc::UnboundedSender<Input>) {
    let call = match &bond {
        Some(bond) => Endpoint::BondEvents.call_of(bond),
        None => Endpoint::Events.call(),
    };
    loop {
        if let Ok(mut lines) = client::lines(&call).await {
            while let Ok(Some(line)) = lines.next().await {
                // An event of another version is left out.
                let Ok(event) = serde_json::from_slice(&line) else { continue };
                if inputs.send(Input::Event(event)).is_err() {
                    return;
                }
            }
        }
        sleep(RETRY).await;
    }
}

fn read_keys(inputs: &mpsc::UnboundedSender<Input>) {
    loop {
        let input = match event::read() {
            Ok(event::Event::Key(key)) if key.kind == KeyEventKind::Press => Input::Key(key),
            Ok(event::Event::Resize(..)) => Input::Resized,
            Ok(_) => continue,
            Err(_) => Input::Gone,
        };
        let is_end = matches!(input, Input::Gone);
        if inputs.send(input).is_err() || is_end {
            return;
        }
    }
}
