//! `rstwatch doctor`, on the kernel that the tests run on.

use std::process::{Command, Output};

use serde_json::Value;

use crate::tracer::{binary, calm};

fn doctor(args: &[&str]) -> Output {
    Command::new(binary())
        .arg("doctor")
        .args(args)
        .output()
        .expect("cannot start the binary")
}

#[test]
fn every_program_loads_and_every_hook_is_attached_by_its_best_means() {
    let _calm = calm();
    let output = doctor(&["-j"]);
    assert!(output.status.success(), "{output:?}");
    let line: Value = serde_json::from_slice(&output.stdout).expect("one object of JSON");
    let report = &line["doctor"];
    assert_eq!(report["works"], true, "{report}");

    let hooks = report["hooks"].as_array().expect("hooks");
    assert!(hooks.len() >= 4, "{hooks:?}");
    for hook in hooks {
        let best = if hook["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("tcp_v"))
        {
            "fentry"
        } else {
            "BTF tracepoint"
        };
        assert_eq!(hook["means"], best, "{hook}");
        assert_eq!(hook["refusal"], Value::Null, "{hook}");
    }
    let programs = report["programs"].as_array().expect("programs");
    assert_eq!(programs.len(), 2 * hooks.len());
    for program in programs {
        assert_eq!(program["loaded"], true, "{program}");
        assert_eq!(program["attached"], true, "{program}");
        assert!(program["translated_bytes"].as_u64() > Some(0), "{program}");
    }
    let fields = report["fields"].as_array().expect("fields");
    assert_eq!(fields.len(), rstwatch_common::layout::FIELDS.len());
}

#[test]
fn its_text_says_what_it_comes_to() {
    let _calm = calm();
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).expect("text");
    let last = text.lines().last().expect("a last line");
    assert!(last.starts_with("rstwatch works here"), "{text}");
    assert!(!text.contains('\u{1b}'), "colour in a pipe: {text}");
}
