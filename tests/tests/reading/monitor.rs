//! `xbond monitor`, and the stream of events.

use super::*;

/// The text output has the events of [`monitor_prints_events`], in lines.
fn prints_lines(one: Monitor) {
    let line = || one.next().split_once("bond0: ").unwrap().1.to_owned();
    assert_eq!(line(), "updelay=100");
    // Here, too, either may come first.
    let mut lines = [line(), line()];
    lines.sort();
    let [failover, option] = lines;
    assert_eq!(option, "enp0s9: prio=5");
    assert!(failover.starts_with("enp0s9 instead of enp0s8: option changed, "), "{failover}");

    one.interrupt();
    let (status, said) = one.end();
    assert!(status.success() && said.is_empty(), "{status} {said}");
}

#[test]
fn monitor_prints_events() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = unguarded(&lab, &[]);
    let (all, state) = Monitor::start(&lab.host, &["-j"]);
    let state = json(&state);
    conforms("event", &state);
    assert_eq!(
        (text(&state["bond"]), text(&state["active_slave"]), &state["carrier"]),
        (BOND, "enp0s8", &true.into())
    );
    let (one, state) = Monitor::start(&lab.host, &[BOND]);
    assert!(state.ends_with("bond0: active slave enp0s8, carrier up"), "{state}");

    xbond.set(BOND, "updelay=100").unwrap();
    let event = all.next_of("option");
    assert_eq!(
        (text(&event["option"]), text(&event["value"]), &event["slave"]),
        ("updelay", "100", &Value::Null)
    );
    xbond.cli(["set", BOND, "--slave", "enp0s9", "prio=5"]).unwrap();
    // enp0s9 has the higher prio now. Either of the two may be reported first.
    let mut events = [(); 2].map(|()| all.next_of_either(["option", "failover"]));
    events.sort_by_key(|event| text(&event["event"]).to_owned());
    assert_eq!(text(&events[0]["receipt"]["chosen"]), "prio");
    assert_eq!((text(&events[1]["slave"]), text(&events[1]["option"])), ("enp0s9", "prio"));

    lab.cut("enp0s9", Cut::Carrier).unwrap();
    let event = all.next_of("link");
    assert_eq!((text(&event["slave"]), text(&event["mii_status"])), ("enp0s9", "down"));
    let event = all.next_of("failover");
    assert_eq!((text(&event["receipt"]["from"]), text(&event["receipt"]["to"])), ("enp0s9", "enp0s8"));
    let receipt = receipts(&lab.host).last().unwrap().clone();
    assert_eq!(receipt, without_peers(event["receipt"].clone()));
    lab.reconnect("enp0s9", Cut::Carrier).unwrap();
    let event = all.next_of("link");
    assert_eq!((text(&event["mii_status"]), &event["delay_ms"]), ("going back", &100.into()));

    xbond.cli(["del-slave", BOND, "enp0s9"]).unwrap();
    let event = all.next_of("slave");
    assert_eq!((text(&event["slave"]), text(&event["change"])), ("enp0s9", "left"));
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    assert_eq!(all.next_of("carrier")["carrier"], false);

    prints_lines(one);
    xbond.stop().unwrap();
    assert_eq!(all.next_of("bond")["change"], "down");
    let (status, said) = all.end();
    assert_eq!(status.code(), Some(2));
    assert_eq!(said, "xbond: the agent has ended; bonds that it kept run without it: see xbond show\n");

    let (other, said) = xbond_ends(&lab.host, &["monitor"]);
    assert_eq!((other, said.contains("no agent runs")), (Some(2), true), "{said}");
}

#[test]
fn monitor_reports_that_the_agent_was_killed() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let (code, said) = xbond_ends(&lab.host, &["monitor", "nosuch"]);
    assert_eq!((code, said.as_str()), (Some(2), "xbond: nosuch: no such bond; `xbond show` lists them\n"));
    let (monitor, _) = Monitor::start(&lab.host, &[]);
    xbond.kill().unwrap();
    let (status, said) = monitor.end();
    assert_eq!((status.code(), said.contains("the agent has ended")), (Some(2), true), "{said}");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

/// The agent waits for no reader, and reports to the reader how many events were lost.
#[test]
fn a_lagging_reader_is_notified_and_disconnected() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let mut slow = ask(&lab.host, "GET /v1/events HTTP/1.1\r\nHost: xbond\r\n\r\n");
    // It listens: the answer has begun.
    let mut first = [0; 1];
    slow.read_exact(&mut first).unwrap();

    // More than sockets and the agent hold, but never more at once than a reader may lag behind.
    let change = |value: u32| {
        let settings = common::six_options(value).map(|(option, value)| (option, value.to_string()));
        let body = serde_json::json!({ "set": settings }).to_string();
        format!(
            "POST /v1/bonds/bond0/options HTTP/1.1\r\nHost: xbond\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    // The agent ends connections that take nothing for ten seconds: they come in half of that time.
    for value in [3, 4].into_iter().cycle().take(700) {
        let mut answer = String::new();
        ask(&lab.host, &change(value)).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(active_slave(&xbond).as_deref(), Some("enp0s8"));

    let mut reported = String::new();
    let mut reader = BufReader::new(slow);
    // The end of a chunked body.
    while !reported.ends_with("\r\n0\r\n") {
        assert_ne!(reader.read_line(&mut reported).unwrap(), 0, "the end of the answer");
    }
    let lines: Vec<_> = reported.lines().filter(|line| line.starts_with('{')).collect();
    let last = json(lines.last().unwrap());
    conforms("event", &last);
    assert_eq!(text(&last["event"]), "lagged");
    let missed = last["missed"].as_u64().unwrap() as usize;
    // The other two lines are the state and the last line.
    let reported = lines.len() - 2;
    assert!(
        reported > 256 && missed > 0 && reported + missed <= 700 * 6,
        "{missed} missed, {reported} reported"
    );
    xbond.stop().unwrap();
}
