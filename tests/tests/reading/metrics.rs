//! Metrics and files for other programs.

use super::*;

/// Sends one request to a TCP port of the namespace.
fn ask_port(host: &NetNs, address: &str, line: &str) -> anyhow::Result<String> {
    let request = format!("{line} HTTP/1.1\r\nHost: xbond\r\nConnection: close\r\n\r\n");
    host.run(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// A reload changes the address.
#[test]
fn metrics_move_with_the_files() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    lab.host.ip("link set lo up").unwrap();
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let bond = "[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n";
    let write = |agent: &str| fs::write(file.path(), format!("version = 1\n{agent}{bond}")).unwrap();
    let at = |port: u16| format!("[agent]\nmetrics = \"127.0.0.1:{port}\"\n");
    let is_served = |port: u16| {
        let answer = ask_port(&lab.host, &format!("127.0.0.1:{port}"), "GET /metrics");
        answer.is_ok_and(|answer| answer.contains("xbond_bond_carrier"))
    };
    write(&at(9815));
    let xbond = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    assert!(is_served(9815));
    write(&at(9816));
    assert_eq!(xbond.cli(["reload"]).unwrap(), "metrics are served at 127.0.0.1:9816\n");
    assert_eq!((is_served(9815), is_served(9816)), (false, true));
    // An address that is not available changes nothing.
    let taken = lab.host.run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9817")?)).unwrap();
    write(&at(9817));
    let error = xbond.cli(["reload"]).unwrap_err().to_string();
    assert!(error.contains("cannot serve metrics at 127.0.0.1:9817: Address already in use"), "{error}");
    assert!(is_served(9816));
    drop(taken);
    write("");
    assert_eq!(xbond.cli(["reload"]).unwrap(), "metrics are served on the control socket only\n");
    assert!(!is_served(9816));
    xbond.stop().unwrap();
}

/// Files are current after each change, also those of a directory that a reload names, and are removed with their bonds and
/// at the end.
#[test]
fn files_for_other_programs_follow_the_bonds() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let scene = tempfile::tempdir().unwrap();
    let at = |name: &str| scene.path().join(name);
    for directory in ["textfile", "proc", "moved"] {
        fs::create_dir(at(directory)).unwrap();
    }
    let read = |name: &str| fs::read_to_string(at(name)).unwrap_or_default();
    let write =
        |agent: &str, bonds: &str| fs::write(at("a.toml"), format!("version = 1\n{agent}{bonds}")).unwrap();
    let bond = "[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n";
    let agent = |proc_files: &str| format!("[agent]\nproc_files = \"{}\"\n", at(proc_files).display());
    write(&agent("proc"), bond);
    let (file, textfile) = (at("a.toml"), at("textfile"));
    let arguments = ["-c", file.to_str().unwrap(), "--textfile", textfile.to_str().unwrap()];
    let xbond = Xbond::run(&lab.host, arguments).unwrap();
    let both_up = "node_bonding_slaves{master=\"bond0\"} 2.0\n";
    common::eventually("the textfile", || read("textfile/xbond.prom"), |text| text.contains(both_up));
    common::eventually(
        "the file of the bond",
        || read("proc/bond0"),
        |text| text.contains("Active Slave: enp0s8\n"),
    );
    lint(&read("textfile/xbond.prom"));
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let one_up = "node_bonding_active{master=\"bond0\"} 1.0\n";
    common::eventually("the textfile", || read("textfile/xbond.prom"), |text| text.contains(one_up));
    common::eventually(
        "the file of the bond",
        || read("proc/bond0"),
        |text| text.contains("Active Slave: enp0s9\n"),
    );
    assert_eq!(read("proc/bond0"), xbond.cli(["show", BOND, "--proc"]).unwrap());
    write(&agent("moved"), bond);
    let moved = format!("proc_files: written to {}\n", at("moved").display());
    assert_eq!(xbond.cli(["reload"]).unwrap(), moved);
    common::eventually("the former file", || at("proc/bond0").exists(), |exists| !exists);
    common::eventually("the new file", || at("moved/bond0").exists(), |exists| *exists);
    xbond.cli(["down", BOND]).unwrap();
    common::eventually("the file of the bond", || at("moved/bond0").exists(), |exists| !exists);
    assert!(at("textfile/xbond.prom").exists());
    xbond.stop().unwrap();
    assert!(!at("textfile/xbond.prom").exists());
}

/// What cannot be written is reported until it can be.
#[test]
fn files_that_cannot_be_written_are_reported() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let scene = tempfile::tempdir().unwrap();
    let directory = scene.path().join("files");
    let arguments = ["--proc-files", directory.to_str().unwrap()];
    let xbond = bond_with(&lab, Datapath::Tc, &[], &arguments);
    let said = format!("proc_files: {}: No such file or directory", directory.display());
    xbond.wait_for(&said).unwrap();
    let shown = || xbond.cli(["show", "-j"]).unwrap();
    assert!(shown().contains(&said), "{}", shown());
    fs::create_dir(&directory).unwrap();
    common::eventually("the report", shown, |shown| !shown.contains("proc_files"));
    assert!(directory.join(BOND).exists());
    xbond.stop().unwrap();
}

#[test]
fn metrics_are_served_at_the_configured_address() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    lab.host.ip("link set lo up").unwrap();
    let xbond = bond_with(&lab, Datapath::Tc, &[], &["--metrics", "127.0.0.1:9815", "--guard", "off"]);
    let get = |line: &str| ask_port(&lab.host, "127.0.0.1:9815", line).unwrap();
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    receipt_to(&lab.host, "enp0s9");
    let answer = get("GET /metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        r#"xbond_bond_carrier{bond="bond0"} 1.0"#,
        r#"xbond_bond_slaves_up{bond="bond0"} 1.0"#,
        r#"xbond_slave_active{bond="bond0",slave="enp0s9"} 1.0"#,
        r#"xbond_slave_mii_status{bond="bond0",slave="enp0s8",status="down"} 1.0"#,
        r#"xbond_failovers_total{bond="bond0",reason="link_failed"} 1"#,
        r#"xbond_slave_link_failures_total{bond="bond0",slave="enp0s8"} 1"#,
        "# TYPE xbond_slave_link_failures_total counter",
    ] {
        assert!(body.lines().any(|found| found == line), "no {line} in\n{body}");
    }
    let mut answer = String::new();
    let accept = "Accept: application/openmetrics-text; version=1.0.0";
    ask(&lab.host, &format!("GET /metrics HTTP/1.1\r\nHost: xbond\r\n{accept}\r\nConnection: close\r\n\r\n"))
        .read_to_string(&mut answer)
        .unwrap();
    assert!(
        answer.contains("content-type: application/openmetrics-text") && answer.ends_with("# EOF\n"),
        "{answer}"
    );
    assert!(answer.contains(r#"xbond_slave_active{bond="bond0",slave="enp0s9"} 1.0"#), "{answer}");
    // Any host that reaches the port may use it.
    for (line, status) in [
        ("GET /v1/bonds", 404),
        ("DELETE /v1/bonds/bond0", 404),
        ("POST /metrics", 405),
        ("GET /v1/events", 404),
    ] {
        let answer = get(line);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }
    lint(body);
    xbond.stop().unwrap();

    let taken = lab.host.run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9815")?)).unwrap();
    let arguments = ["--bond", BOND, "--slave", "enp0s8", "-o", "miimon=100", "--metrics", "127.0.0.1:9815"];
    let xbond = Xbond::run(&lab.host, arguments).unwrap();
    let said = "metrics are not served: cannot serve metrics at 127.0.0.1:9815: Address already in use";
    let shown = || xbond.cli(["show"]).unwrap();
    assert!(shown().replace("\n ", "").contains(said), "{}", shown());
    xbond.wait_for(said).unwrap();
    drop(taken);
    common::eventually("metrics", shown, |shown| !shown.contains("not served"));
    assert!(get("GET /metrics").contains("xbond_bond_carrier"));
    xbond.stop().unwrap();
}

/// Returns promtool, if it is installed; it is in Debian's package prometheus.
fn promtool() -> Option<Command> {
    let found =
        Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip("promtool is not installed (Debian: package prometheus)");
    }
    found.then(|| Command::new("promtool"))
}

/// Checks names, help, types and units against the rules of Prometheus, whose own format promtool reads.
fn lint(metrics: &str) {
    let Some(mut promtool) = promtool() else { return };
    let mut child =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{metrics}");
}

#[test]
fn alerts_are_raised_when_they_should_be() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus");
    for arguments in [["check", "rules", "xbond.rules.yml"], ["test", "rules", "xbond.test.yml"]] {
        let Some(mut promtool) = promtool() else { return };
        let output = promtool.args(arguments).current_dir(&rules).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}
