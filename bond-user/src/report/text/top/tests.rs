//! The screen in several sizes.

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::report::{
    event::{SlaveChange, What},
    json::Counters,
    testing::{self, moment},
};

fn event(seconds: u64, what: What) -> Event {
    Event { moment: moment(seconds), ..Event::new(Some("bond0"), what) }
}

/// Returns a screen of two reports, two seconds apart.
fn screen() -> Screen {
    let mut screen = Screen::default();
    let first =
        testing::report(vec![testing::bond(), Bond { name: "bond1".into(), ..testing::plain_bond() }]);
    let mut second = Report { moment: moment(368), ..first.clone() };
    for bond in &mut second.bonds {
        let Counters { tx_packets, tx_bytes, rx_packets, rx_bytes, .. } = &mut bond.slaves[1].counters;
        *tx_packets += 3_000;
        *tx_bytes += 4_500_000;
        *rx_packets += 20;
        *rx_bytes += 1_500;
    }
    screen.report(Ok(first));
    screen.report(Ok(second));
    screen.event(event(360, What::State { active_slave: None, carrier: false }));
    screen.event(event(361, What::Failover { receipt: testing::receipt() }));
    screen.event(event(362, What::Slave { slave: "enp0s8".into(), change: SlaveChange::Drained }));
    screen
}

fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame.area(), frame.buffer_mut())).unwrap();
    let lines = terminal.backend().buffer().content().chunks(usize::from(width.max(1)));
    let lines = lines.map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn the_screen_fits_in_80_by_24() {
    insta::assert_snapshot!(drawn(&mut screen(), 80, 24));
}

#[test]
fn one_frame_as_text_has_no_events_and_no_keys() {
    insta::assert_snapshot!(screen().text(80));
}

#[test]
fn a_screen_without_a_report_says_why() {
    let mut screen = Screen::default();
    screen.report(Err("no agent runs".to_owned()));
    assert!(drawn(&mut screen, 80, 24).starts_with("xbond top   no agent runs\n"));
}

#[test]
fn a_stale_screen_stays_and_says_so() {
    let mut screen = screen();
    screen.report(Err("the agent does not answer".to_owned()));
    let text = drawn(&mut screen, 120, 24);
    assert!(text.lines().next().unwrap().ends_with("! the agent does not answer"), "{text}");
    assert!(text.contains("  enp0s8"), "{text}");
}

#[test]
fn a_small_terminal_has_the_bonds_rather_than_the_sections() {
    let text = drawn(&mut screen(), 80, 9);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("xbond top")
            && lines[2].starts_with("bond0 ")
            && lines[3].starts_with("  enp0s8"),
        "{text}"
    );
    assert!(lines[8].starts_with("q quit"), "{text}");
}

#[test]
fn every_size_can_be_drawn_and_scrolled() {
    for width in [0, 1, 7, 40, 79, 80, 200] {
        for height in 0..40 {
            let mut screen = screen();
            for rows in [isize::MIN, isize::MAX, -3, 1] {
                screen.scroll(rows);
                screen.scroll_page(rows.signum());
                drawn(&mut screen, width, height);
            }
        }
    }
}

#[test]
fn scrolling_shows_each_row_and_ends_at_the_last() {
    let mut screen = screen();
    let first = drawn(&mut screen, 80, 15);
    assert!(first.contains("more lines below") && !first.contains("bond1 "), "{first}");
    let mut seen = String::new();
    for _ in 0..20 {
        seen.push_str(&drawn(&mut screen, 80, 15));
        screen.scroll(1);
    }
    assert!(seen.contains("bond1 "), "{seen}");
    let last = drawn(&mut screen, 80, 15);
    assert!(!last.contains("more lines below"), "{last}");
}

/// The kernel accepts such names, and texts of administrators have anything in them.
#[test]
fn escape_sequences_never_reach_the_terminal() {
    let evil = "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\n";
    let mut bond = testing::bond();
    bond.slaves[0].name = evil.to_owned();
    bond.absent = vec![evil.to_owned()];
    bond.warnings = vec![evil.to_owned()];
    bond.last_failover = None;
    let mut screen = Screen::default();
    let report = Report { missing: vec![evil.to_owned()], ..testing::report(vec![bond]) };
    screen.report(Ok(report));
    screen.event(event(1, What::Warning { text: evil.to_owned() }));
    screen.failover(Receipt { from: Some(evil.to_owned()), ..testing::receipt() });
    screen.report(Err(evil.to_owned()));
    let text = drawn(&mut screen, 200, 40);
    let bad = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
    assert_eq!(text.chars().find(bad), None, "{text:?}");
    assert!(text.contains("\\u{1b}]0;x\\u{7}"), "{text}");
}

#[test]
fn numbers_are_short() {
    let table =
        [(0.0, "0"), (999.4, "999"), (999.5, "1.0k"), (9_949.0, "9.9k"), (12_345.0, "12k"), (2.5e9, "2.5G")];
    for (number, expected) in table {
        assert_eq!(short(number), expected);
    }
    assert_eq!(short(f64::from(u32::MAX) * 1e6), "4.3P");
}
