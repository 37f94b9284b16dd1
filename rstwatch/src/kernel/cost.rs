//! What it costs that a hook or a field is not there, in plain words: for `doctor`, and for the notes
//! at the start.

use rstwatch_common::layout::Field;

/// What is not known without the hook of this name, a tracepoint or a function.
pub fn of_hook(name: &str) -> &'static str {
    match name {
        "tcp_send_reset" => "resets that this host sends are not seen",
        "tcp_receive_reset" => "resets that this host receives are not seen",
        "inet_sock_set_state" => {
            "owners are known only from what was open at the start and from /proc, the state before \
             an abort and who listened are unknown"
        }
        "tcp_destroy_sock" => {
            "nothing is remembered of a connection: its owner comes from what was open at the start \
             and from /proc only, and what comes for a closed one looks half-open"
        }
        "tcp_v4_send_reset" => {
            "IPv4 resets in answer to segments that meet no socket (closed ports, late segments) are \
             not seen"
        }
        "tcp_v6_send_reset" => {
            "IPv6 resets in answer to segments that meet no socket (closed ports, late segments) are \
             not seen"
        }
        "interrupting_tcp_send_reset" => {
            "resets that the kernel sends in the middle of another one's hook are not seen, and \
             counted as skipped"
        }
        _ => "what it tells is not known",
    }
}

/// What is not known without a field, or `None` when its lack is of no consequence: then another field
/// stands in for it, or the kernel lacks what it would tell of.
pub fn of_field(field: &Field) -> Option<&'static str> {
    if field.required {
        return Some("rstwatch cannot work");
    }
    Some(match (field.structure, field.member) {
        // Other fields tell the same: the socket's inode, and who else refers to its file; and so does the clock. The rest
        // stands for what this kernel was built without, or does not have yet.
        ("sock", "sk_ino" | "sk_cgrp_data.cgroup" | "sk_cgrp_data.is_data")
        | ("file", "f_count" | "f_ref")
        | ("sock_common", "skc_v6_daddr" | "skc_v6_rcv_saddr" | "skc_net.net")
        | ("net_device", "nd_net.net")
        | ("net", "net_cookie")
        | ("tcp_sock", "is_mptcp" | "md5sig_info" | "ao_info" | "tcp_clock_cache")
        | ("rt6_info", "rt6i_flags") => return None,
        ("cgroup" | "kernfs_node", _) => {
            "resets of processes that have gone have no unit or container"
        }
        ("socket", "file") => "of a socket shared by several processes only one may be named",
        ("sock", "sk_lingertime") => "a close with SO_LINGER 0 is less certain",
        ("sock", "sk_ack_backlog" | "sk_max_ack_backlog") => {
            "an overflow of the accept queue is less certain"
        }
        ("sock", "sk_kern_sock") => "sockets of the kernel itself are not told apart",
        ("inet_connection_sock", "icsk_ack.lrcvtime") | ("tcp_sock", "lsndtime" | "rcv_tstamp") => {
            "idle times are unknown, and with them idle drops"
        }
        ("inet_connection_sock", _)
        | ("tcp_sock", "keepalive_time" | "keepalive_intvl" | "keepalive_probes") => {
            "resets by timers are less certain"
        }
        ("tcp_sock", "linger2") => "resets for TCP_LINGER2 are less certain",
        ("tcp_sock", "bytes_received" | "bytes_acked" | "bytes_sent") => {
            "the bytes of a connection are unknown"
        }
        ("inet_timewait_sock", "tw_substate") => "data after close is less certain",
        ("signal_struct" | "task_struct", _) => "the OOM killer's victims are not told apart",
        ("rtable", "rt_type") => "segments that merely pass through may be counted as answered",
        _ => "a detail of the evidence is missing",
    })
}

#[cfg(test)]
mod tests {
    use rstwatch_common::layout::FIELDS;

    use super::*;
    use crate::kernel::layout::{FUNCTIONS, TRACEPOINTS};

    #[test]
    fn every_hook_has_a_cost_of_its_own() {
        let mut costs: Vec<_> = TRACEPOINTS
            .iter()
            .chain(&FUNCTIONS)
            .map(|name| of_hook(name))
            .collect();
        costs.sort_unstable();
        costs.dedup();
        assert_eq!(costs.len(), TRACEPOINTS.len() + FUNCTIONS.len());
        assert!(!costs.contains(&of_hook("another")));
    }

    #[test]
    fn costs_follow_the_word_without() {
        for cost in FIELDS
            .iter()
            .filter_map(of_field)
            .chain(TRACEPOINTS.map(of_hook))
        {
            assert!(!cost.ends_with('.') && !cost.contains('\n'), "{cost}");
            assert!(
                cost.starts_with(|first: char| first.is_lowercase() || cost.starts_with("IPv")),
                "{cost}"
            );
        }
    }

    #[test]
    fn a_required_field_is_never_of_no_consequence() {
        for field in FIELDS.iter().filter(|field| field.required) {
            assert_eq!(of_field(field), Some("rstwatch cannot work"), "{field:?}");
        }
    }
}
