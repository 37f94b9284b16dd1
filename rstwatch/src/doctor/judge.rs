//! Findings to a report. A function of values.

use crate::{
    cause::Reasons,
    kernel::{cost, layout::FUNCTIONS},
    load::{
        Kernel,
        hook::INTERRUPTING,
        preflight::StartError,
        trial::{Loaded, Trial},
    },
    privileges::{self, NEEDS},
};

use super::{
    findings::Findings,
    report::{Check, Field, Hook, Program, Report, Verdict},
};

/// What the findings mean.
pub(super) fn judge(findings: Findings) -> Report {
    let checks = checks(&findings);
    let (hooks, programs) = match (&findings.kernel, &findings.trials) {
        (Ok(kernel), Some(Ok(trials))) => (hooks(kernel, trials), programs(trials)),
        _ => (Vec::new(), Vec::new()),
    };
    let fields = findings.kernel.as_ref().map(fields).unwrap_or_default();
    let broken = checks
        .iter()
        .map(|check| check.verdict)
        .chain(hooks.iter().map(|hook| hook.verdict))
        .any(|verdict| verdict == Verdict::Broken);
    Report {
        works: !broken && !hooks.is_empty(),
        version: env!("CARGO_PKG_VERSION"),
        kernel: findings.release,
        machine: findings.machine,
        checks,
        hooks,
        fields,
        programs,
    }
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Ok,
        found: found.into(),
        cost: None,
        remedy: None,
    }
}

fn less(
    name: &'static str,
    found: impl Into<String>,
    cost: impl Into<String>,
    remedy: Option<&'static str>,
) -> Check {
    Check {
        name,
        verdict: Verdict::Less,
        found: found.into(),
        cost: Some(cost.into()),
        remedy,
    }
}

/// A failure of the start; its sentence has the remedy.
fn broken(name: &'static str, error: &StartError) -> Check {
    Check {
        name,
        verdict: Verdict::Broken,
        found: error.to_string(),
        cost: Some("rstwatch cannot trace".to_owned()),
        remedy: None,
    }
}

fn checks(findings: &Findings) -> Vec<Check> {
    let mut checks = vec![kernel(findings), btf(findings), lockdown(findings)];
    checks.extend(capabilities(findings));
    checks.push(maps(findings));
    if let Ok(kernel) = &findings.kernel {
        checks.push(reasons(kernel));
        checks.push(unsocketed(kernel));
        checks.push(memlock(kernel, findings));
    }
    checks.extend([
        symbols(findings),
        snapshot(findings),
        cgroups(findings),
        counters(findings),
        settings(findings),
    ]);
    checks
}

fn kernel(findings: &Findings) -> Check {
    match &findings.preflight {
        Err(error @ StartError::TooOld { .. }) => broken("kernel", error),
        _ => ok("kernel", format!("Linux {}", findings.release)),
    }
}

fn btf(findings: &Findings) -> Check {
    match &findings.kernel {
        Ok(kernel) => {
            let costly = kernel
                .missing
                .iter()
                .filter(|missing| cost::of_field(missing.field).is_some())
                .count();
            ok(
                "btf",
                match costly {
                    0 => "every field that matters is described".to_owned(),
                    1 => "read; one field is missing".to_owned(),
                    costly => format!("read; {costly} fields are missing"),
                },
            )
        }
        Err(error) => broken("btf", error),
    }
}

fn lockdown(findings: &Findings) -> Check {
    match (&findings.preflight, findings.lockdown.as_deref()) {
        (Err(error @ StartError::Lockdown), _) => broken("lockdown", error),
        (_, Some(mode)) => ok("lockdown", mode),
        (_, None) => ok("lockdown", "none, or not to be read"),
    }
}

fn capabilities(findings: &Findings) -> Vec<Check> {
    let who = if findings.uid == 0 {
        "root".to_owned()
    } else {
        format!("uid {}", findings.uid)
    };
    let mut checks = vec![match findings.initial_user_namespace {
        Some(false) => Check {
            name: "user",
            verdict: Verdict::Less,
            found: format!("{who}, in a user namespace of its own"),
            cost: Some("its capabilities do not count for BPF".to_owned()),
            remedy: Some("run it on the host, or in a container without a user namespace"),
        },
        _ => ok("user", who),
    }];
    let missing: Vec<_> = privileges::missing(&findings.held).collect();
    for need in &NEEDS {
        let name = capability_name(need.capability);
        checks.push(if !missing.contains(&need) {
            ok(name, format!("held ({})", need.purpose))
        } else if let Some(cost) = need.cost {
            less(
                name,
                format!("missing ({})", need.purpose),
                cost,
                Some("run it as root, or grant it with setcap"),
            )
        } else {
            Check {
                name,
                verdict: Verdict::Broken,
                found: format!("missing ({})", need.purpose),
                cost: Some("rstwatch cannot trace".to_owned()),
                remedy: Some("run it as root, or grant it with setcap"),
            }
        });
    }
    checks
}

fn capability_name(capability: caps::Capability) -> &'static str {
    use caps::Capability;
    match capability {
        Capability::CAP_BPF => "CAP_BPF",
        Capability::CAP_PERFMON => "CAP_PERFMON",
        Capability::CAP_SYS_PTRACE => "CAP_SYS_PTRACE",
        Capability::CAP_DAC_READ_SEARCH => "CAP_DAC_READ_SEARCH",
        Capability::CAP_SYSLOG => "CAP_SYSLOG",
        _ => "CAP",
    }
}

fn maps(findings: &Findings) -> Check {
    match &findings.trials {
        Some(Ok(_)) => ok("bpf", "maps were made and programs loaded"),
        // Without the capabilities the kernel's answer tells nothing more.
        Some(Err(_)) if let Err(error @ StartError::Capability { .. }) = &findings.preflight => {
            broken("bpf", error)
        }
        Some(Err(error)) => broken("bpf", error),
        None => ok("bpf", "not tried"),
    }
}

fn reasons(kernel: &Kernel) -> Check {
    match Reasons::named_by(&kernel.reasons) {
        Reasons::All => ok(
            "reasons",
            "the kernel names one for every reset that it sends",
        ),
        Reasons::Passive => less(
            "reasons",
            "the kernel names one for answers to segments only (6.10 and 6.11)",
            "the cause of a reset that this host sends of its own accord comes from the socket and \
             the kernel's stack, and is often only likely",
            None,
        ),
        Reasons::None => less(
            "reasons",
            "the kernel names none (before 6.10)",
            "the cause of a reset comes from the segment, the socket and the kernel's stack, and is \
             often only likely",
            None,
        ),
    }
}

/// Resets without a full socket, and what remains unseen of them.
fn unsocketed(kernel: &Kernel) -> Check {
    let signed = kernel.layout.md5sig_info != rstwatch_common::layout::ABSENT;
    if kernel.hooks.sends_all {
        ok("answers", "the tracepoint tells of resets without a socket")
    } else if signed {
        less(
            "answers",
            "the tracepoint does not tell of resets without a socket: two functions are hooked",
            "a reset in answer to a segment that is signed (TCP-MD5) and meets no socket is not seen, \
             only counted by the kernel",
            None,
        )
    } else {
        ok(
            "answers",
            "the tracepoint does not tell of resets without a socket: two functions are hooked",
        )
    }
}

fn memlock(kernel: &Kernel, findings: &Findings) -> Check {
    match (kernel.hooks.memlock, findings.memlock) {
        (false, _) => ok("memlock", "maps do not count as locked memory"),
        (true, None) => ok(
            "memlock",
            "maps count as locked memory, of which any amount may be used",
        ),
        (true, Some(bytes)) => less(
            "memlock",
            format!(
                "maps count as locked memory, of which {} KiB may be used",
                bytes >> 10
            ),
            "rstwatch may not start with its usual buffers",
            Some("run it as root or with CAP_SYS_RESOURCE, or after `ulimit -l unlimited`"),
        ),
    }
}

fn symbols(findings: &Findings) -> Check {
    match &findings.symbols {
        Ok(()) => ok("kallsyms", "addresses of kernel functions can be read"),
        Err(why) => less(
            "kallsyms",
            why.clone(),
            "resets that this host sends of its own accord have no actor, and their causes are less \
             certain",
            Some("grant CAP_SYSLOG, and set kernel.kptr_restrict to 0 or 1"),
        ),
    }
}

fn snapshot(findings: &Findings) -> Check {
    ok(
        "snapshot",
        format!(
            "{} sockets among the open files of {} processes (from /proc)",
            findings.sockets, findings.processes
        ),
    )
}

fn cgroups(findings: &Findings) -> Check {
    if findings.cgroup2 {
        ok("cgroups", "the unified hierarchy is mounted")
    } else {
        less(
            "cgroups",
            "the unified hierarchy (cgroup2) is not mounted here",
            "resets of processes that have gone have no unit or container",
            None,
        )
    }
}

fn counters(findings: &Findings) -> Check {
    match findings.counters {
        0 => less(
            "counters",
            "TcpOutRsts cannot be read",
            "what was seen cannot be compared with what the kernel counted",
            Some("mount /proc"),
        ),
        1 => ok(
            "counters",
            "TcpOutRsts of one network namespace can be read",
        ),
        namespaces => ok(
            "counters",
            format!("TcpOutRsts of {namespaces} network namespaces can be read"),
        ),
    }
}

/// For whoever is told of it; none of them stands in the way by itself.
fn settings(findings: &Findings) -> Check {
    let sysctls = &findings.sysctls;
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    ok(
        "settings",
        format!(
            "kernel.unprivileged_bpf_disabled {}, kernel.perf_event_paranoid {}, \
             kernel.kptr_restrict {}, tracefs {}",
            value(&sysctls.unprivileged_bpf_disabled),
            value(&sysctls.perf_event_paranoid),
            value(&sysctls.kptr_restrict),
            if findings.tracefs {
                "mounted"
            } else {
                "not mounted (not needed)"
            },
        ),
    )
}

fn hooks(kernel: &Kernel, trials: &[Trial]) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = kernel
        .hooks
        .missing
        .iter()
        .map(|name| Hook {
            name,
            verdict: Verdict::Less,
            means: None,
            refusal: Some("this kernel has no such tracepoint".to_owned()),
            cost: Some(cost::of_hook(name)),
        })
        .collect();
    for forms in trials.chunk_by(|a, b| a.hook == b.hook) {
        let name = forms[0].hook;
        let working = forms.iter().find(|trial| trial.works());
        let refused = forms
            .iter()
            .take_while(|trial| !trial.works())
            .find_map(|trial| Some(format!("{}: {}", trial.means, trial.error()?)));
        hooks.push(Hook {
            name,
            verdict: match working {
                Some(_) => Verdict::Ok,
                None if FUNCTIONS.contains(&name) || name == INTERRUPTING => Verdict::Less,
                None => Verdict::Broken,
            },
            means: working.map(|trial| trial.means.to_string()),
            refusal: refused,
            cost: working.is_none().then(|| cost::of_hook(name)),
        });
    }
    hooks
}

fn fields(kernel: &Kernel) -> Vec<Field> {
    rstwatch_common::layout::FIELDS
        .iter()
        .map(|field| {
            let missing = kernel.missing.iter().find(|missing| missing.field == field);
            Field {
                structure: field.structure,
                member: field.member,
                found: missing.is_none(),
                why: missing.map(|missing| missing.why.to_string()),
                cost: missing.and_then(|_| cost::of_field(field)),
            }
        })
        .collect()
}

fn programs(trials: &[Trial]) -> Vec<Program> {
    trials
        .iter()
        .map(|trial| {
            let loaded = trial.loaded.as_ref().ok();
            Program {
                name: trial.program.clone(),
                attach: trial.means.to_string(),
                loaded: loaded.is_some(),
                attached: trial.works(),
                verified_insns: loaded.and_then(|loaded: &Loaded| loaded.verified_insns),
                translated_bytes: loaded.and_then(|loaded| loaded.translated_bytes),
                error: trial.error().map(ToString::to_string),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use caps::{Capability, CapsHashSet};

    use super::{
        super::{findings::Sysctls, text::Look},
        *,
    };
    use crate::{
        btf::Btf,
        kernel::{casts::KernelCasts, layout, reasons},
        load::hook::Means,
    };

    fn kernel(bytes: &[u8]) -> Kernel {
        let types = Btf::parse(bytes).unwrap();
        let (layout, missing) = layout::resolve(&types).unwrap();
        Kernel {
            layout,
            missing,
            hooks: layout::hooks(&types),
            reasons: reasons::Reasons::from_btf(&types),
            casts: KernelCasts::from_btf(&types),
        }
    }

    fn trial(hook: &'static str, means: Means, error: Option<StartError>) -> Trial {
        Trial {
            hook,
            means,
            program: format!("program_{hook}"),
            attached: error.is_none().then_some(Ok(())),
            loaded: match error {
                None => Ok(Loaded {
                    verified_insns: Some(1_234),
                    translated_bytes: Some(5_678),
                }),
                Some(error) => Err(error),
            },
        }
    }

    fn refused() -> StartError {
        StartError::Refused {
            what: "the BPF program".to_owned(),
            source: io::Error::from_raw_os_error(1),
        }
    }

    /// Root on a new kernel: nothing is missing.
    fn well() -> Findings {
        let kernel = kernel(include_bytes!("../../tests/fixtures/btf/6.18.btf"));
        let trials = layout::TRACEPOINTS
            .iter()
            .flat_map(|name| [trial(name, Means::Btf, None), trial(name, Means::Raw, None)])
            .collect();
        Findings {
            release: "6.18.44".to_owned(),
            machine: "x86_64".to_owned(),
            preflight: Ok(()),
            kernel: Ok(kernel),
            lockdown: Some("none".to_owned()),
            initial_user_namespace: Some(true),
            uid: 0,
            held: caps::all(),
            sysctls: Sysctls {
                unprivileged_bpf_disabled: Some("2".to_owned()),
                perf_event_paranoid: Some("2".to_owned()),
                kptr_restrict: Some("0".to_owned()),
            },
            symbols: Ok(()),
            memlock: Some(8 << 20),
            tracefs: true,
            cgroup2: true,
            sockets: 62,
            processes: 40,
            counters: 3,
            trials: Some(Ok(trials)),
        }
    }

    /// Root on an old kernel, where one function cannot be hooked.
    fn old() -> Findings {
        let kernel = kernel(include_bytes!("../../tests/fixtures/btf/5.10.btf"));
        let mut trials: Vec<Trial> = layout::TRACEPOINTS
            .iter()
            .flat_map(|name| [trial(name, Means::Btf, None), trial(name, Means::Raw, None)])
            .collect();
        trials.push(trial("tcp_v4_send_reset", Means::Fentry, Some(refused())));
        trials.push(trial("tcp_v4_send_reset", Means::Kprobe, None));
        trials.push(trial("tcp_v6_send_reset", Means::Fentry, Some(refused())));
        trials.push(trial("tcp_v6_send_reset", Means::Kprobe, Some(refused())));
        Findings {
            release: "5.10.0-36-amd64".to_owned(),
            kernel: Ok(kernel),
            trials: Some(Ok(trials)),
            tracefs: false,
            cgroup2: false,
            ..well()
        }
    }

    /// Nobody, with nothing.
    fn powerless() -> Findings {
        Findings {
            preflight: Err(StartError::Capability {
                missing: "CAP_BPF and CAP_PERFMON".to_owned(),
            }),
            uid: 65_534,
            held: CapsHashSet::new(),
            symbols: Err("/proc/kallsyms shows no addresses".to_owned()),
            trials: Some(Err(refused())),
            ..well()
        }
    }

    fn text(findings: Findings) -> String {
        judge(findings).text(Look { colour: false })
    }

    #[test]
    fn all_is_well() {
        insta::assert_snapshot!(text(well()));
    }

    #[test]
    fn an_old_kernel() {
        let report = judge(old());
        assert!(report.works, "{report:?}");
        insta::assert_snapshot!(report.text(Look { colour: false }));
    }

    #[test]
    fn without_privileges() {
        let report = judge(powerless());
        assert!(!report.works, "{report:?}");
        insta::assert_snapshot!(report.text(Look { colour: false }));
    }

    #[test]
    fn as_json() {
        let mut report = judge(old());
        report.fields.retain(|field| !field.found);
        report.programs.truncate(2);
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
    }

    #[test]
    fn a_kernel_without_type_information_breaks_it() {
        let report = judge(Findings {
            kernel: Err(StartError::NoBtf),
            trials: None,
            ..well()
        });
        assert!(!report.works && report.fields.is_empty() && report.hooks.is_empty());
        let btf = report.checks.iter().find(|check| check.name == "btf");
        assert_eq!(btf.unwrap().verdict, Verdict::Broken);
    }

    #[test]
    fn a_tracepoint_that_cannot_be_attached_breaks_it_and_a_function_does_not() {
        for (hook, works) in [("tcp_send_reset", false), ("tcp_v4_send_reset", true)] {
            let mut findings = well();
            if let Some(Ok(trials)) = &mut findings.trials {
                trials.retain(|trial| trial.hook != hook);
                trials.push(trial(hook, Means::Raw, Some(refused())));
            }
            assert_eq!(judge(findings).works, works, "{hook}");
        }
    }

    #[test]
    fn a_tracepoint_that_the_kernel_lacks_costs_what_it_tells() {
        let mut findings = well();
        if let Ok(kernel) = &mut findings.kernel {
            kernel.hooks.missing = vec!["tcp_destroy_sock"];
        }
        if let Some(Ok(trials)) = &mut findings.trials {
            trials.retain(|trial| trial.hook != "tcp_destroy_sock");
        }
        let report = judge(findings);
        assert!(report.works);
        let hook = &report.hooks[0];
        assert_eq!(
            (hook.name, hook.verdict),
            ("tcp_destroy_sock", Verdict::Less)
        );
        assert_eq!(hook.cost, Some(cost::of_hook("tcp_destroy_sock")));
    }

    #[test]
    fn each_missing_capability_is_one_line() {
        for need in &NEEDS {
            let mut findings = well();
            findings.held.remove(&need.capability);
            findings.held.remove(&Capability::CAP_SYS_ADMIN);
            let bad: Vec<_> = judge(findings)
                .checks
                .into_iter()
                .filter(|check| check.verdict != Verdict::Ok)
                .map(|check| check.name)
                .collect();
            assert_eq!(bad, [need.capability.to_string()]);
        }
    }
}
