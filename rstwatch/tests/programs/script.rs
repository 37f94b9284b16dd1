//! A client in another language, which does what it is told line by line, and says what came of it.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, ChildStdout},
};

use rstwatch::cause::catalogue::Symptom;

use crate::{
    expect::{Who, who},
    place::{Place, Program},
};

/// The client.
pub struct Script {
    program: Program,
    name: &'static str,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    /// Starts it, and waits until it says that it is ready. `name` is its process's.
    pub fn start<S: Into<OsString>>(
        place: &Place,
        name: &'static str,
        program: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut program = place.start_piped(name, program, args);
        let mut script = Self {
            input: program.stdin(),
            output: BufReader::new(program.stdout()),
            program,
            name,
        };
        let ready = script.answer();
        assert_eq!(ready, "ready", "{}", place.read(&format!("{name}.err")));
        script
    }

    /// Who it is.
    pub fn who(&self) -> Who {
        who(self.program.pid(), self.name)
    }

    /// Tells it what to do.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the script listens");
    }

    /// Waits for its answer.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("cannot read");
        line.trim_end().to_owned()
    }

    /// Tells it what to do, and waits for its answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }
}

/// What the catalogue says that `program` prints of a symptom.
pub fn words(symptom: Symptom, program: &str) -> &'static str {
    let lines = symptom.description().lines;
    let line = lines.iter().find(|line| line.program == program);
    line.expect("a line of the catalogue").text
}
