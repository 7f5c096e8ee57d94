//! What the command line prints, word for word: each file of tests/cmd is commands and their output.
//! `TRYCMD=overwrite cargo test -p bond-user --test transcripts` writes them anew.

#[test]
fn the_command_line_prints_what_its_transcripts_say() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
