//! Child processes: pinned, spoken to in lines, killed by pid when their handle goes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use crate::bench::Outcome;

/// A running child. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// What it is, for errors.
    name: &'static str,
    /// Its standard input, unless it has none.
    input: Option<ChildStdin>,
    /// Its standard output, unless that goes elsewhere.
    output: Option<BufReader<ChildStdout>>,
}

/// This program with `arguments` on `cores`. The caller says where its streams go.
///
/// # Errors
/// If this program's own file is not known.
pub fn command(cores: &[usize], arguments: &[String]) -> Outcome<Command> {
    foreign(cores, &std::env::current_exe()?, arguments)
}

/// Another program, in the same way.
///
/// # Errors
/// If this program's own file is not known.
pub fn foreign(cores: &[usize], program: &Path, arguments: &[String]) -> Outcome<Command> {
    let cores: Vec<String> = cores.iter().map(ToString::to_string).collect();
    let mut command = Command::new(std::env::current_exe()?);
    let parent = std::process::id().to_string();
    command.args(["bench", "pinned", "--parent", &parent, "--cores", &cores.join(",")]);
    command.arg("--program").arg(program).arg("--").args(arguments);
    Ok(command)
}

impl Child {
    /// Starts `command`. Call it from a thread that outlives the child: the kernel kills the
    /// child when that thread ends.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &'static str, command: &mut Command) -> Outcome<Child> {
        let mut process = command.spawn().map_err(|why| format!("cannot start {name}: {why}"))?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        Ok(Child { process, name, input, output: output.map(BufReader::new) })
    }

    /// Starts a child that is asked and answers in lines.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn talking(name: &'static str, cores: &[usize], arguments: &[String]) -> Outcome<Child> {
        let mut command = command(cores, arguments)?;
        Child::start(name, command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended by itself, and how.
    ///
    /// # Errors
    /// Of waitpid(2).
    pub fn has_ended(&mut self) -> Outcome<Option<std::process::ExitStatus>> {
        Ok(self.process.try_wait()?)
    }

    /// Sends an empty line, which asks for an answer.
    ///
    /// # Errors
    /// If the child is gone.
    pub fn ask(&mut self) -> Outcome<()> {
        let input = self.input.as_mut().ok_or("this child takes no questions")?;
        input.write_all(b"\n").map_err(|why| format!("{} is gone: {why}", self.name).into())
    }

    /// The next line that it says. Blocks; children are bounded in time, so not for ever.
    ///
    /// # Errors
    /// If the child is gone.
    pub fn answer(&mut self) -> Outcome<String> {
        let output = self.output.as_mut().ok_or("this child gives no answers")?;
        let mut line = String::new();
        match output.read_line(&mut line)? {
            0 => Err(format!("{} has ended early", self.name).into()),
            _ => Ok(line),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Errors: it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_answers_and_does_not_outlive_its_handle() {
        let mut command = Command::new("cat");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child::start("cat", command).unwrap();
        let status = format!("/proc/{}", child.pid());
        for _ in 0..2 {
            child.ask().unwrap();
            assert_eq!(child.answer().unwrap(), "\n");
        }
        assert!(child.has_ended().unwrap().is_none() && std::path::Path::new(&status).exists());
        drop(child);
        assert!(!std::path::Path::new(&status).exists());
    }
}
