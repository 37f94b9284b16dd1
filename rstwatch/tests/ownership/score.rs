//! What must be shown, held against what was: right, `null` or wrong.

use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

/// A process.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Its PID in the initial namespace.
    pub pid: u32,
    /// Its name: the thread group's.
    pub comm: &'static str,
}

/// Who must have pulled the trigger.
#[derive(Clone, Debug)]
pub enum Doer {
    /// This process: the fields of `actor` that are to be as given.
    Process(Value),
    /// A kernel thread, whichever.
    KernelThread,
    /// The one or the other.
    ProcessOrKernelThread(Value),
}

impl Doer {
    /// The main thread of this process, of its own will.
    pub fn process(who: Who) -> Self {
        Self::thread(who, who.pid)
    }

    /// The same, or a kernel thread that does its work.
    pub fn process_or_kernel_thread(who: Who) -> Self {
        Self::ProcessOrKernelThread(willing(who, who.pid))
    }

    /// This thread of the process, of its own will.
    pub fn thread(who: Who, tid: u32) -> Self {
        Self::Process(willing(who, tid))
    }

    /// This process, which a signal was ending.
    pub fn killed(who: Who, signal: i32, oom: bool) -> Self {
        Self::Process(json!({
            "pid": who.pid, "tid": who.pid, "comm": who.comm, "exiting": true,
            "signal": signal, "exit_status": null, "oom": oom, "kernel_thread": false,
        }))
    }

    /// This process, which was ending by itself.
    pub fn exited(who: Who, status: u8) -> Self {
        Self::Process(json!({
            "pid": who.pid, "tid": who.pid, "comm": who.comm, "exiting": true,
            "signal": null, "exit_status": status, "oom": false, "kernel_thread": false,
        }))
    }
}

/// The fields of `actor` of a thread that acts of its own will.
fn willing(who: Who, tid: u32) -> Value {
    json!({
        "pid": who.pid, "tid": tid, "comm": who.comm, "exiting": false,
        "signal": null, "exit_status": null, "oom": false, "kernel_thread": false,
    })
}

/// A reset that must be shown.
#[derive(Clone, Debug)]
pub struct Wanted {
    direction: &'static str,
    netns: u32,
    local: SocketAddr,
    remote: SocketAddr,
    owner: Option<Who>,
    holders: Vec<u32>,
    actor: Option<Doer>,
    gone: bool,
}

impl Wanted {
    /// One that this host sends; without an owner and an actor, if none is given.
    pub fn sent(netns: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            direction: "sent",
            netns,
            local,
            remote,
            owner: None,
            holders: Vec::new(),
            actor: None,
            gone: false,
        }
    }

    /// One that this host receives.
    pub fn received(netns: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            direction: "received",
            ..Self::sent(netns, local, remote)
        }
    }

    /// Whose socket it is.
    #[must_use]
    pub fn owner(mut self, who: Who) -> Self {
        self.owner = Some(who);
        self
    }

    /// Everyone who holds the socket, when more than one does.
    #[must_use]
    pub fn holders(mut self, pids: impl IntoIterator<Item = u32>) -> Self {
        self.holders = pids.into_iter().collect();
        self.holders.sort_unstable();
        self
    }

    /// Who pulled the trigger.
    #[must_use]
    pub fn actor(mut self, doer: Doer) -> Self {
        self.actor = Some(doer);
        self
    }

    /// The owner had ended: whoever has its PID now must not lend it its executable.
    #[must_use]
    pub fn gone(mut self) -> Self {
        self.gone = true;
        self
    }

    fn is(&self, event: &Value) -> bool {
        let end = |end: SocketAddr| json!({"addr": end.ip().to_string(), "port": end.port()});
        event["direction"] == self.direction
            && event["netns"] == self.netns
            && event["local"] == end(self.local)
            && event["remote"] == end(self.remote)
    }

    fn judge(&self, event: &Value) -> Verdict {
        self.judge_owner(&event["owner"])
            .max(self.judge_actor(&event["actor"]))
    }

    fn judge_owner(&self, owner: &Value) -> Verdict {
        let Some(who) = self.owner else {
            return Verdict::of(owner.is_null());
        };
        if owner.is_null() {
            return Verdict::Null;
        }
        let holders = match owner.get("holders") {
            Some(holders) => *holders == json!(self.holders),
            None => self.holders.is_empty(),
        };
        Verdict::of(
            owner["pid"] == who.pid
                && owner["comm"] == who.comm
                && holders
                && !(self.gone && owner["exe"].is_string()),
        )
    }

    fn judge_actor(&self, actor: &Value) -> Verdict {
        match &self.actor {
            None => Verdict::of(actor.is_null()),
            Some(_) if actor.is_null() => Verdict::Null,
            Some(Doer::KernelThread) => Verdict::of(actor["kernel_thread"] == true),
            Some(Doer::Process(wanted)) => Verdict::of(wanted == actor),
            Some(Doer::ProcessOrKernelThread(wanted)) => {
                Verdict::of(wanted == actor || actor["kernel_thread"] == true)
            }
        }
    }
}

/// Of a reset, or of a repetition: its worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Right,
    Null,
    Wrong,
}

impl Verdict {
    const fn of(right: bool) -> Self {
        if right { Self::Right } else { Self::Wrong }
    }
}

/// How a situation went.
pub struct Score {
    name: &'static str,
    right: usize,
    null: usize,
    wrong: usize,
    vias: BTreeSet<String>,
    took: Duration,
    complaints: Vec<String>,
}

impl Score {
    /// Judges the repetitions of a situation, in each of which these resets were to be shown.
    pub fn new(
        name: &'static str,
        repetitions: &[Vec<Wanted>],
        seen: &[Value],
        took: Duration,
    ) -> Self {
        let mut score = Self {
            name,
            right: 0,
            null: 0,
            wrong: 0,
            vias: BTreeSet::new(),
            took,
            complaints: Vec::new(),
        };
        let mut left: Vec<&Value> = seen.iter().collect();
        for (rep, wanted) in repetitions.iter().enumerate() {
            let verdict = wanted
                .iter()
                .map(|wanted| score.judge(rep, wanted, &mut left))
                .max();
            match verdict.expect("a repetition without a reset") {
                Verdict::Right => score.right += 1,
                Verdict::Null => score.null += 1,
                Verdict::Wrong => score.wrong += 1,
            }
        }
        let more = left
            .iter()
            .map(|event| format!("{name}: not expected: {event}"));
        score.complaints.extend(more);
        score
    }

    fn judge(&mut self, rep: usize, wanted: &Wanted, left: &mut Vec<&Value>) -> Verdict {
        let Some(at) = left.iter().position(|event| wanted.is(event)) else {
            let never = format!("{}, repetition {rep}: never shown: {wanted:?}", self.name);
            self.complaints.push(never);
            return Verdict::Null;
        };
        // In the order of time, should two be of the same connection.
        let event = left.remove(at);
        let verdict = wanted.judge(event);
        if let Some(via) = event["owner"]["via"].as_str() {
            self.vias.insert(via.to_owned());
        }
        if verdict == Verdict::Wrong {
            self.complaints.push(format!(
                "{}, repetition {rep}: wanted {wanted:?}, shown {event}",
                self.name
            ));
        }
        verdict
    }

    /// What is wrong, missing or too much.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        self.complaints.iter().map(String::as_str)
    }
}

/// Repetitions that were right, and all.
pub fn total(scores: &[Score]) -> (usize, usize) {
    let right = scores.iter().map(|score| score.right).sum();
    let rest: usize = scores.iter().map(|score| score.null + score.wrong).sum();
    (right, right + rest)
}

/// A line a situation, and the sum.
pub fn table(scores: &[Score]) -> String {
    let mut table = format!(
        "{:56} {:>11} {:>6} {:>5} {:>6} {:>6}  via\n",
        "situation", "repetitions", "right", "null", "wrong", "s"
    );
    let mut line = |name: &str, [right, null, wrong]: [usize; 3], took: Duration, vias: &str| {
        let all = right + null + wrong;
        writeln!(
            table,
            "{name:56} {all:>11} {right:>6} {null:>5} {wrong:>6} {:>6.1}  {vias}",
            took.as_secs_f64()
        )
        .expect("a string takes everything");
    };
    let took = scores.iter().map(|score| score.took).sum();
    let mut sum = [0; 3];
    for score in scores {
        let counts = [score.right, score.null, score.wrong];
        let vias: Vec<&str> = score.vias.iter().map(String::as_str).collect();
        line(score.name, counts, score.took, &vias.join(" "));
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    line("all", sum, took, "");
    table
}
