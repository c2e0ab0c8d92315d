use std::process::ExitCode;

fn main() -> ExitCode {
    xla_moco::cli::main()
}
