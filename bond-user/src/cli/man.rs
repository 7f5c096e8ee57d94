//! `xbond man`

use std::io::{self, Write as _};

use anyhow::{Result, bail};
use bond_core::options;
use clap::CommandFactory as _;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Cli, ManArgs};
use crate::{config::settings, report::wording};

/// Returns the keys of a bond, for the page of xbond itself.
fn keys() -> Roff {
    let own = settings::ROWS.iter().map(|row| (row.key, row.help));
    let drivers = options::ROWS.iter().map(|row| (row.key, row.help));
    let mut page = Roff::new();
    page.control("SH", ["KEYS OF A BOND"]);
    page.text([roman(wording::keys_of_bond())]);
    for (key, help) in own.chain(drivers) {
        page.control("TP", []);
        page.text([bold(key)]);
        page.text([roman(help.trim())]);
    }
    page
}

/// Prints the manual page of xbond, or of a verb, as roff.
///
/// # Errors
/// There is no such verb.
pub fn man(arguments: &ManArgs) -> Result<()> {
    let mut xbond = Cli::command();
    // Sets the full names of the verbs.
    xbond.build();
    let page = match &arguments.verb {
        None => xbond.disable_help_flag(true),
        Some(name) => match xbond.find_subcommand(name) {
            Some(verb) => verb.clone(),
            None => {
                let verbs: Vec<_> = xbond.get_subcommands().map(clap::Command::get_name).collect();
                bail!(wording::no_such_verb(name, verbs.join(", ")));
            }
        },
    };
    let mut text = Vec::new();
    Man::new(page).section("8").manual("xbond").render(&mut text)?;
    if arguments.verb.is_none() {
        keys().to_writer(&mut text)?;
    }
    // A reader that closes early, such as head, is no error.
    let _ = io::stdout().write_all(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::toml;

    #[test]
    fn every_key_is_documented() {
        // Options that are aliases, have one value only, or have no effect in active-backup.
        let idle = [
            "mode",
            "num_unsol_na",
            "use_carrier",
            "min_links",
            "xmit_hash_policy",
            "ad_select",
            "lp_interval",
        ];
        let (request, tables) = (["active_slave"], ["slave"]);
        let all = toml::keys();
        let drivers = options::ROWS.iter().map(|row| row.key).collect::<Vec<_>>();
        let of_table = [settings::KEYS, options::KEYS].concat();
        let page = keys().render().replace("\\fB", "");
        let example = include_str!("../../../packaging/bond0.toml.example");
        let documents = [
            ("the example", &all, example, [&idle[..], &request, &tables].concat()),
            ("the reference", &all, include_str!("../../../docs/reference/options.md"), tables.to_vec()),
            ("PARITY", &of_table, include_str!("../../../docs/PARITY.md"), request.to_vec()),
            (
                "the manual page",
                &of_table,
                &page,
                [&request[..], &["mode", "num_unsol_na", "use_carrier"]].concat(),
            ),
            ("the schema", &drivers, include_str!("../../../docs/xbond.schema.json"), Vec::new()),
        ];
        for (document, keys, text, without) in documents {
            let words: std::collections::HashSet<_> =
                text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
            let missing: Vec<_> =
                keys.iter().filter(|key| !without.contains(key) && !words.contains(**key)).collect();
            assert!(missing.is_empty(), "{document} does not name {missing:?}");
        }
    }
}
