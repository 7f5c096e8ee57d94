//! The screen of `xbond top`: bonds and slaves with their rates, the last failovers, and events.

use std::collections::{BTreeMap, VecDeque};

use bond_core::name::printable;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    widgets::Widget,
};

use super::{
    columns::{age, wrap_below},
    log::{change, switched_in},
    monitor,
};
use crate::report::{
    event::{Event, What},
    json::{Bond, Report, Slave},
    moment::Moment,
    receipt::Receipt,
    wording::{self, ORPHANED},
};

/// Events and failovers that are kept.
const KEPT: usize = 200;

/// The width of each column; the last six are numbers, at the right of theirs.
const WIDTHS: [u16; 9] = [18, 8, 11, 5, 9, 9, 7, 7, 6];
const TITLES: [&str; 9] =
    ["BOND / SLAVE", "STATE", "MII", "SPEED", "TX bit/s", "RX bit/s", "TX p/s", "RX p/s", "FAILS"];
/// The first column of numbers.
const NUMBERS: usize = 3;

/// Lines of the section of failovers, with its title.
const FAILOVERS: u16 = 5;
/// Lines that the section of events has at least, with its title.
const EVENTS: u16 = 5;

const KEYS: &str = "q quit   up, down, page up, page down: scroll";

/// What is shown.
#[derive(Debug, Default)]
pub struct Screen {
    now: Option<Report>,
    /// The report before, for rates.
    before: Option<Report>,
    /// By time.
    failovers: BTreeMap<(u64, String), Receipt>,
    events: VecDeque<Event>,
    /// Why there is no newer report.
    problem: Option<String>,
    /// The first row of bonds that is shown.
    first: usize,
    /// Rows of bonds that the last drawing had room for.
    room: usize,
}

/// A row of the table.
struct Row {
    cells: Cells,
    style: Style,
}

enum Cells {
    /// One text over all columns.
    Wide(String),
    Columns([String; 9]),
}

impl Screen {
    /// Takes a new report, or why there is none.
    pub fn report(&mut self, answer: Result<Report, String>) {
        match answer {
            Ok(report) => {
                for last in report.bonds.iter().filter_map(|bond| bond.last_failover.clone()) {
                    self.failover(last);
                }
                // A report of the same moment, or of another machine's clock, has no rates.
                self.before = self.now.replace(report);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// Takes an event.
    pub fn event(&mut self, event: Event) {
        if let What::Failover { receipt } = &event.what {
            self.failover(receipt.clone());
        }
        // Each new stream of events begins with these.
        if let What::State { .. } = event.what {
            return;
        }
        self.events.push_front(event);
        self.events.truncate(KEPT);
    }

    /// Takes a failover, which may be known already.
    pub fn failover(&mut self, receipt: Receipt) {
        self.failovers.insert((receipt.switched.monotonic_us, receipt.bond.clone()), receipt);
        while self.failovers.len() > KEPT {
            self.failovers.pop_first();
        }
    }

    /// Moves the first row by so many rows.
    pub fn scroll(&mut self, rows: isize) {
        self.first = self.first.saturating_add_signed(rows);
    }

    /// Moves the first row by as many rows as there is room for.
    pub fn scroll_page(&mut self, pages: isize) {
        let room = isize::try_from(self.room.max(1)).unwrap_or(isize::MAX);
        self.scroll(pages.saturating_mul(room));
    }

    /// Draws it. Every text is made safe for a terminal.
    pub fn draw(&mut self, area: Rect, buffer: &mut Buffer) {
        let rows = self.rows();
        let wanted = u16::try_from(rows.len()).unwrap_or(u16::MAX);
        let [head, titles, table, failovers, events, foot] = sections_of(area, wanted);
        line(buffer, head, 0, &self.head(), Style::new().add_modifier(Modifier::REVERSED));
        let titles_row = Row { cells: Cells::Columns(TITLES.map(str::to_owned)), style: bold() };
        draw_row(buffer, titles, 0, &titles_row);
        self.room = usize::from(table.height);
        self.first = self.first.min(rows.len().saturating_sub(self.room));
        for (y, row) in (0..table.height).zip(&rows[self.first.min(rows.len())..]) {
            draw_row(buffer, table, y, row);
        }
        let receipts = self.failovers.values().rev().map(|receipt| self.failover_line(receipt));
        section(buffer, failovers, "LAST FAILOVERS", receipts, "none yet");
        section(buffer, events, "EVENTS", self.events.iter().map(monitor::event), "none yet");
        let below = rows.len().saturating_sub(self.first + self.room);
        let more = if below > 0 { format!("   {below} more lines below") } else { String::new() };
        line(buffer, foot, 0, &format!("{KEYS}{more}"), Style::new().add_modifier(Modifier::DIM));
    }

    /// Returns the screen as text of this width, with as many lines as it needs.
    pub fn text(&mut self, width: u16) -> String {
        let failovers = u16::try_from(self.failovers.len().clamp(1, 4)).unwrap_or(1);
        let rows = u16::try_from(self.rows().len()).unwrap_or(u16::MAX);
        // Without events and the line of keys.
        let height = rows.saturating_add(3).saturating_add(failovers);
        let area = Rect::new(0, 0, width, rows.saturating_add(3 + FAILOVERS + EVENTS));
        let mut buffer = Buffer::empty(area);
        self.draw(area, &mut buffer);
        let cells = |y: u16| (0..width).map(move |x| (x, y));
        let text = |y: u16| cells(y).map(|at| buffer[at].symbol()).collect::<String>();
        (0..height).map(|y| format!("{}\n", text(y).trim_end())).collect()
    }

    fn head(&self) -> String {
        let Some(report) = &self.now else {
            return format!("xbond top   {}", self.problem.as_deref().unwrap_or(""));
        };
        let agent = match &report.agent {
            Some(agent) => format!(
                "agent {}, pid {}, up {}",
                agent.version,
                agent.pid,
                age(agent.started.until(&report.moment))
            ),
            None => "no agent".to_owned(),
        };
        let time = report.moment.time.get(11..19).unwrap_or_default();
        let problem = self.problem.as_ref().map(|problem| format!("   ! {problem}")).unwrap_or_default();
        format!("xbond top {time}   {agent}{problem}")
    }

    fn rows(&self) -> Vec<Row> {
        let Some(report) = &self.now else { return Vec::new() };
        let mut rows: Vec<_> = report.bonds.iter().flat_map(|bond| self.rows_of(bond)).collect();
        let gone = report.gone.iter().cloned();
        let orphaned = report.orphaned.iter().map(|name| format!("{name}: {ORPHANED}"));
        rows.extend(
            gone.chain(orphaned).chain(report.missing.iter().cloned()).flat_map(|text| warning(&text)),
        );
        if rows.is_empty() {
            rows.push(Row { cells: Cells::Wide(wording::NO_BONDS.to_owned()), style: Style::new() });
        }
        rows
    }

    fn rows_of(&self, bond: &Bond) -> Vec<Row> {
        let before =
            self.before.as_ref().and_then(|report| report.bonds.iter().find(|known| known.name == bond.name));
        let rates: Vec<_> = bond.slaves.iter().map(|slave| self.rates_of(slave, before)).collect();
        let sum = rates.iter().flatten().copied().reduce(Rates::plus);
        let up = bond.slaves.iter().filter(|slave| slave.mii_status == "up").count();
        let (state, style) = if bond.carrier { ("up", bold()) } else { ("DOWN", bold().fg(Color::Red)) };
        let configured = bond.slaves.len() + bond.absent.len();
        let failovers: u64 = bond.failovers.values().sum();
        let mut cells = [&bond.name, state, &format!("{up} of {configured} up"), "", "", "", "", "", ""]
            .map(str::to_owned);
        Rates::put(sum, &mut cells);
        cells[8] = short(failovers as f64);
        let mut rows = vec![Row { cells: Cells::Columns(cells), style }];
        rows.extend(bond.slaves.iter().zip(rates).map(|(slave, rates)| slave_row(slave, rates)));
        rows.extend(bond.absent.iter().map(|name| {
            let cells = [&format!("  {name}"), "absent", "", "", "", "", "", "", ""].map(str::to_owned);
            Row { cells: Cells::Columns(cells), style: Style::new().fg(Color::Red) }
        }));
        let warnings = bond.warnings.iter().chain(bond.slaves.iter().flat_map(|slave| &slave.warnings));
        rows.extend(warnings.flat_map(|text| warning(text)));
        rows
    }

    /// Returns the rates of a slave; `None` if the former report does not have it, or it has rejoined.
    fn rates_of(&self, slave: &Slave, before: Option<&Bond>) -> Option<Rates> {
        let seconds = self.before.as_ref()?.moment.until(&self.now.as_ref()?.moment).as_secs_f64();
        let is_it = |known: &&Slave| known.name == slave.name && known.ifindex == slave.ifindex;
        let (new, old) = (&slave.counters, &before?.slaves.iter().find(is_it)?.counters);
        let rate =
            |new: u64, old: u64| Some(new.checked_sub(old)? as f64 / seconds).filter(|rate| rate.is_finite());
        Some(Rates {
            tx_bits: rate(new.tx_bytes, old.tx_bytes)? * 8.0,
            rx_bits: rate(new.rx_bytes, old.rx_bytes)? * 8.0,
            tx_packets: rate(new.tx_packets, old.tx_packets)?,
            rx_packets: rate(new.rx_packets, old.rx_packets)?,
        })
    }

    fn failover_line(&self, receipt: &Receipt) -> String {
        let now = self.now.as_ref().map_or(&receipt.switched, |report: &Report| &report.moment);
        let ago = Moment::until(&receipt.switched, now);
        let took = switched_in(receipt);
        format!("{:>12} ago {}: {} ({took})", age(ago), receipt.bond, change(receipt))
    }
}

/// What passes a slave in a second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    tx_bits: f64,
    rx_bits: f64,
    tx_packets: f64,
    rx_packets: f64,
}

impl Rates {
    fn plus(self, other: Self) -> Self {
        Self {
            tx_bits: self.tx_bits + other.tx_bits,
            rx_bits: self.rx_bits + other.rx_bits,
            tx_packets: self.tx_packets + other.tx_packets,
            rx_packets: self.rx_packets + other.rx_packets,
        }
    }

    fn put(rates: Option<Self>, cells: &mut [String; 9]) {
        let values =
            rates.map(|rates| [rates.tx_bits, rates.rx_bits, rates.tx_packets, rates.rx_packets].map(short));
        let values = values.unwrap_or_else(|| ["-"; 4].map(str::to_owned));
        for (cell, value) in cells.iter_mut().skip(4).zip(values) {
            *cell = value;
        }
    }
}

fn slave_row(slave: &Slave, rates: Option<Rates>) -> Row {
    let is_active = slave.state == "active";
    let state = match slave {
        Slave { drained: Some(_), .. } if !is_active => "drained",
        Slave { damped: true, .. } if !is_active => "damped",
        _ => &slave.state,
    };
    let speed = slave.speed.map_or_else(|| "-".to_owned(), |megabits| short(f64::from(megabits) * 1e6));
    let style = match slave.mii_status.as_str() {
        "up" if is_active => Style::new().fg(Color::Green),
        "up" => Style::new(),
        "down" => Style::new().fg(Color::Red),
        _ => Style::new().fg(Color::Yellow),
    };
    let name = format!("  {}", slave.name);
    let mut cells = [&name, state, &slave.mii_status, &speed, "", "", "", "", ""].map(str::to_owned);
    Rates::put(rates, &mut cells);
    cells[8] = slave.link_failure_count.map_or_else(|| "-".to_owned(), |count| short(count.into()));
    Row { cells: Cells::Columns(cells), style }
}

/// Returns the rows of a warning, of at most 80 columns each.
fn warning(text: &str) -> Vec<Row> {
    let mut lines = String::new();
    // Writing to a String cannot fail.
    let _ = wrap_below(&mut lines, "  ! ", "    ", &safe(text));
    let row = |line: &str| Row { cells: Cells::Wide(line.to_owned()), style: Style::new().fg(Color::Yellow) };
    lines.lines().map(row).collect()
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Formats a number in at most 5 columns: `999`, `1.2k`, `850M`.
fn short(number: f64) -> String {
    let (mut number, mut unit) = (number, 0);
    while number >= 999.5 && unit < UNITS.len() - 1 {
        number /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && number < 9.95);
    format!("{number:.digits$}{}", UNITS[unit])
}

const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];

/// Returns the areas of the head, the titles, so many rows, both sections and the keys, from the top to the bottom. A small
/// terminal has the rows rather than the sections.
fn sections_of(area: Rect, rows: u16) -> [Rect; 6] {
    let left = area.height.saturating_sub(3);
    let sections = (FAILOVERS + EVENTS).min(left / 2);
    let table = rows.min(left - sections);
    let rest = left - table;
    let failovers = if rest < 4 { rest } else { FAILOVERS.min(rest / 2) };
    let heights = [1, 1, table, failovers, rest - failovers, 1];
    let mut y = area.y;
    heights.map(|height| {
        let height = height.min(area.bottom().saturating_sub(y));
        let section = Rect { y, height, ..area };
        y += height;
        section
    })
}

/// Draws a title and as many lines as there is room for.
fn section(buffer: &mut Buffer, area: Rect, title: &str, lines: impl Iterator<Item = String>, nothing: &str) {
    line(buffer, area, 0, title, bold());
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return line(buffer, area, 1, &format!("  {nothing}"), Style::new().add_modifier(Modifier::DIM));
    }
    for (y, text) in (1..area.height).zip(lines) {
        line(buffer, area, y, &format!("  {}", text.trim_start_matches(' ')), Style::new());
    }
}

/// Draws a text in a line of an area, if the area has that line.
fn line(buffer: &mut Buffer, area: Rect, y: u16, text: &str, style: Style) {
    if y < area.height {
        let row = Rect { y: area.y + y, height: 1, ..area };
        buffer.set_style(row, style);
        ratatui::text::Line::raw(safe(text)).render(row, buffer);
    }
}

fn draw_row(buffer: &mut Buffer, area: Rect, y: u16, row: &Row) {
    let columns = match &row.cells {
        Cells::Wide(text) => return line(buffer, area, y, text, row.style),
        Cells::Columns(columns) => columns,
    };
    let mut x = area.x;
    for (number, (text, width)) in columns.iter().zip(WIDTHS).enumerate() {
        let room = area.right().saturating_sub(x).min(width);
        let cell = Rect { x, y: 0, width: room, height: area.height };
        let text = if number >= NUMBERS {
            format!("{text:>width$}", width = usize::from(width))
        } else {
            text.clone()
        };
        line(buffer, Rect { y: area.y, ..cell }, y, &text, row.style);
        x = x.saturating_add(room);
    }
}

/// Returns a text that a terminal executes nothing of, in one line.
fn safe(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests;
