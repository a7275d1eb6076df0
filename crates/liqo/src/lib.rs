//! What both server binaries do first: choose a role by the name the binary is called by, or by its first argument.

use std::{ffi::OsString, path::Path, process::ExitCode};

use liqo_api::role::{ROLES, Role};

/// Runs the role that the command line names: `run` gets its program and its arguments, the program's name first, and gives nothing
/// for a program that `binary` does not hold.
pub fn start(binary: &str, run: impl FnOnce(&str, Vec<OsString>) -> Option<Result<(), String>>) -> ExitCode {
    let (program, args) = called(std::env::args_os().collect());
    match run(&program, args).unwrap_or_else(|| Err(unknown(binary))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(binary, &why),
    }
}

/// The program, and the arguments that begin with the program's name.
fn called(mut args: Vec<OsString>) -> (String, Vec<OsString>) {
    let name = |args: &[OsString]| {
        args.first().and_then(|arg| Path::new(arg).file_name()?.to_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut program = name(&args);
    if Role::called(&program).is_none() && args.len() > 1 {
        args.remove(0);
        program = name(&args);
    }
    (program, args)
}

fn unknown(binary: &str) -> String {
    let programs: Vec<_> = ROLES.iter().filter(|role| role.binary() == binary).map(|role| role.program).collect();
    format!("call me as, or with the first argument, one of: {}", programs.join(", "))
}

#[expect(clippy::print_stderr, reason = "a process that cannot start has no log yet")]
fn failed(binary: &str, why: &str) -> ExitCode {
    eprintln!("{binary}: {why}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_name_or_the_first_argument() {
        for (line, program, args) in [
            ("/usr/bin/liqo-gateway --x", "liqo-gateway", "/usr/bin/liqo-gateway --x"),
            ("/usr/bin/liqo liqo-gateway --x", "liqo-gateway", "liqo-gateway --x"),
            ("liqo", "liqo", "liqo"),
            ("", "", ""),
        ] {
            let split = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
            assert_eq!(called(split(line)), (program.to_owned(), split(args)), "{line}");
        }
    }

    #[test]
    fn a_binary_names_its_own_programs() {
        let said = unknown(liqo_api::role::SERVICES);
        assert!(said.contains("liqo-store") && !said.contains("liqo-gateway"), "{said}");
    }
}
