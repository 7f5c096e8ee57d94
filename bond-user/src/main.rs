use std::process::ExitCode;

fn main() -> ExitCode {
    bond_user::cli::main()
}
