//! What `doctor` reports: the contract of `doctor -j`.

use serde::Serialize;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be, or of no consequence.
    Ok,
    /// Something is not known for want of it.
    Less,
    /// rstwatch cannot work so.
    Broken,
}

/// Everything. New fields may be added; none changes its meaning, and what is not known is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the core works: the exit status.
    pub works: bool,
    /// rstwatch's version.
    pub version: &'static str,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// What was looked at, beside hooks and fields.
    pub checks: Vec<Check>,
    /// The hooks in the order of attachment.
    pub hooks: Vec<Hook>,
    /// The fields of kernel structures; empty when the kernel does not describe them.
    pub fields: Vec<Field>,
    /// The programs that this kernel was given to load, in every form.
    pub programs: Vec<Program>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, lower case and with underscores; a capability's own name.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What is not known, or does not work, because of it.
    pub cost: Option<String>,
    /// What to do about it.
    pub remedy: Option<&'static str>,
}

/// A place in the kernel to attach to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// The tracepoint's or function's name.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// The means that it is attached by: the best of those that work.
    pub means: Option<String>,
    /// Why there is none, or why better ones are refused.
    pub refusal: Option<String>,
    /// What is not known without it.
    pub cost: Option<&'static str>,
}

/// A field of a kernel structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The structure.
    pub structure: &'static str,
    /// The member.
    pub member: &'static str,
    /// Whether it is there in the form in which it is read.
    pub found: bool,
    /// Why it cannot be read.
    pub why: Option<String>,
    /// What is not known without it; `null` when that is of no consequence.
    pub cost: Option<&'static str>,
}

/// A BPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name in the object.
    pub name: String,
    /// The means that it is for.
    pub attach: String,
    /// Whether it was loaded.
    pub loaded: bool,
    /// Whether it was attached.
    pub attached: bool,
    /// Instructions that the verifier went through.
    pub verified_insns: Option<u32>,
    /// Bytes of the program as the verifier rewrote it.
    pub translated_bytes: Option<u32>,
    /// Why it was not loaded or attached.
    pub error: Option<String>,
}

impl Report {
    /// As one line of JSON: `{"doctor":{...}}`.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Line<'a> {
            doctor: &'a Report,
        }
        serde_json::to_string(&Line { doctor: self }).map(|line| line + "\n")
    }
}
