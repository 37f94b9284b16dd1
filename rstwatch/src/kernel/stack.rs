//! What a kernel stack says about a reset that this host sent of its own accord: what the kernel
//! was doing, and whether the running task has to do with it.
//!
//! Only a stack tells. In a softirq `current` is whoever was interrupted; on the loopback device a
//! whole receive path runs on top of the sender's system call; and the kernel's reasons name
//! neither the system call nor, before 6.12, anything at all. What the verdict means for the cause
//! is not decided here.

use std::io::BufRead;

use super::symbols::{Symbols, SymbolsError};
use crate::event::{Context, Path};

/// What a function on the stack says.
struct Function {
    name: &'static str,
    /// What the kernel was doing.
    path: Option<Path>,
    /// Whose context the function and all that it called ran in: ends the walk.
    context: Option<Context>,
}

const fn path(name: &'static str, path: Path) -> Function {
    Function {
        name,
        path: Some(path),
        context: None,
    }
}

/// Runs in an interrupt, a softirq or a timer.
const fn interrupt(name: &'static str) -> Function {
    Function {
        name,
        path: None,
        context: Some(Context::Interrupt),
    }
}

const fn timer(name: &'static str, path: Path) -> Function {
    Function {
        name,
        path: Some(path),
        context: Some(Context::Interrupt),
    }
}

/// May sleep, so it runs in the context of the running task only.
const fn process(name: &'static str) -> Function {
    Function {
        name,
        path: None,
        context: Some(Context::Process),
    }
}

/// The functions that matter, by the names that they have in 5.10 to 7.2. Not all of them exist in
/// every kernel, and a compiler may inline some: there are several for each verdict.
const FUNCTIONS: [Function; 46] = [
    // net/ipv4/tcp.c: SOCK_DESTROY, bpf_sock_destroy().
    path("tcp_abort", Path::Destroy),
    // net/ipv4/inet_connection_sock.c: children that nobody has accepted.
    path("inet_csk_listen_stop", Path::ListenerClose),
    path("inet_child_forget", Path::ListenerClose),
    // net/mptcp/protocol.c, subflow.c.
    path("mptcp_do_fastclose", Path::Mptcp),
    path("__mptcp_close", Path::Mptcp),
    path("mptcp_close", Path::Mptcp),
    path("__mptcp_close_ssk", Path::Mptcp),
    path("mptcp_close_ssk", Path::Mptcp),
    path("mptcp_disconnect", Path::Mptcp),
    path("mptcp_destroy_common", Path::Mptcp),
    path("__mptcp_unaccepted_force_close", Path::Mptcp),
    path("mptcp_subflow_queue_clean", Path::Mptcp),
    path("mptcp_subflow_reset", Path::Mptcp),
    path("mptcp_subflow_data_available", Path::Mptcp),
    path("subflow_data_ready", Path::Mptcp),
    path("mptcp_incoming_options", Path::Mptcp),
    path("mptcp_worker", Path::Mptcp),
    // net/ipv4/tcp.c.
    path("__tcp_close", Path::Close),
    path("tcp_close", Path::Close),
    path("tcp_disconnect", Path::Disconnect),
    // net/ipv4/tcp_timer.c. When a task held the socket as the timer went off, the timer's work is
    // done as the task releases it; the task has nothing to do with it even then.
    timer("tcp_keepalive_timer", Path::KeepaliveTimer),
    timer("tcp_write_timer", Path::WriteTimer),
    timer("tcp_write_timer_handler", Path::WriteTimer),
    // The receive path from the inside out, and timers.
    interrupt("tcp_v4_rcv"),
    interrupt("tcp_v6_rcv"),
    interrupt("ip_protocol_deliver_rcu"),
    interrupt("ip6_protocol_deliver_rcu"),
    interrupt("__netif_receive_skb_core"),
    interrupt("process_backlog"),
    interrupt("net_rx_action"),
    interrupt("call_timer_fn"),
    interrupt("run_timer_softirq"),
    interrupt("handle_softirqs"),
    interrupt("__do_softirq"),
    interrupt("irq_exit_rcu"),
    interrupt("__irq_exit_rcu"),
    // net/core/sock.c: segments that waited until the running task was done with the socket.
    process("__release_sock"),
    // From the socket layer outwards.
    process("__inet_stream_connect"),
    process("inet_release"),
    process("inet6_release"),
    process("__sock_release"),
    process("__fput"),
    process("task_work_run"),
    process("do_exit"),
    process("netlink_rcv_skb"),
    process("worker_thread"),
];

/// Classifies kernel stacks.
#[derive(Clone, Debug)]
pub struct Stacks {
    symbols: Option<Symbols>,
}

impl Stacks {
    /// From the text of `/proc/kallsyms`.
    ///
    /// # Errors
    ///
    /// When the symbols cannot be used; [`Stacks::unreadable`] then takes the place.
    pub fn from_kallsyms(text: impl BufRead) -> Result<Self, SymbolsError> {
        let names = FUNCTIONS.each_ref().map(|function| function.name);
        let symbols = Symbols::parse(text, &names)?;
        Ok(Self {
            symbols: Some(symbols),
        })
    }

    /// For a kernel that does not let its symbols be read: nothing is known of any stack.
    pub const fn unreadable() -> Self {
        Self { symbols: None }
    }

    /// What the stack says. `stack` holds return addresses, innermost first, and ends at its first
    /// zero; one without a zero may have been cut off.
    ///
    /// The walk goes from the tracepoint outwards and stops at the first function whose context is
    /// known. What is further out was interrupted, or runs on behalf of somebody else (the peer,
    /// on the loopback device), and does not count. When nothing stops the walk, it has passed
    /// through the whole of a task's stack: no function of the receive path or of a timer is on
    /// it, so the task did it. That is not concluded from a stack that may have been cut off, nor
    /// from one of which no frame is known.
    pub fn classify(&self, stack: &[u64]) -> (Path, Context) {
        let Some(symbols) = &self.symbols else {
            return (Path::Unknown, Context::Unknown);
        };
        let mut paths = Paths::default();
        let mut known = false;
        let mut complete = false;
        for &address in stack {
            if address == 0 {
                complete = true;
                break;
            }
            // A return address is the one after the call: it may be past the function's end when
            // the call was its last instruction.
            let Some(index) = symbols.find(address - 1) else {
                continue;
            };
            let function = &FUNCTIONS[index];
            known = true;
            if let Some(path) = function.path {
                paths.add(path);
            }
            if let Some(context) = function.context {
                return (paths.most_specific(), context);
            }
        }
        let context = if known && complete {
            Context::Process
        } else {
            Context::Unknown
        };
        (paths.most_specific(), context)
    }
}

/// The paths that were met on a stack.
#[derive(Default)]
struct Paths(u8);

impl Paths {
    /// From the most specific to the least: to destroy a socket or to close a listener passes
    /// through what a plain close passes through (`inet_child_forget` calls `tcp_disconnect`
    /// under `__tcp_close`), and a close with `SO_LINGER` 0 calls `tcp_disconnect`.
    const BY_PRECEDENCE: [Path; 7] = [
        Path::Destroy,
        Path::ListenerClose,
        Path::Mptcp,
        Path::KeepaliveTimer,
        Path::WriteTimer,
        Path::Close,
        Path::Disconnect,
    ];

    fn add(&mut self, path: Path) {
        if let Some(rank) = Self::BY_PRECEDENCE.iter().position(|&p| p == path) {
            self.0 |= 1 << rank;
        }
    }

    fn most_specific(&self) -> Path {
        let rank = self.0.trailing_zeros() as usize;
        let found = Self::BY_PRECEDENCE.get(rank);
        found.copied().unwrap_or(Path::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    /// Functions that say nothing, but are on real stacks.
    const OTHERS: [&str; 33] = [
        "tcp_send_active_reset",
        "tcp_v4_send_reset",
        "tcp_v4_do_rcv",
        "tcp_rcv_state_process",
        "tcp_rcv_established",
        "tcp_validate_incoming",
        "tcp_reset",
        "tcp_check_req",
        "__tcp_transmit_skb",
        "tcp_connect",
        "tcp_v4_connect",
        "sock_close",
        "__x64_sys_close",
        "do_syscall_64",
        "____fput",
        "do_group_exit",
        "get_signal",
        "arch_do_signal_or_restart",
        "release_sock",
        "tcp_release_cb",
        "tcp_out_of_resources",
        "tcp_diag_destroy",
        "inet_diag_cmd_exact",
        "netlink_unicast",
        "netlink_sendmsg",
        "__run_timers",
        "__local_bh_enable_ip",
        "do_softirq",
        "mptcp_check_listen_stop",
        "inet_csk_complete_hashdance",
        "process_one_work",
        "kthread",
        "tcp_sendmsg",
    ];

    const BASE: u64 = 0xffff_ffff_8100_0000;
    const LEN: u64 = 0x100;

    fn names() -> impl Iterator<Item = &'static str> {
        let known = FUNCTIONS.iter().map(|function| function.name);
        known.chain(OTHERS)
    }

    fn stacks() -> Stacks {
        let mut text = String::new();
        for (address, name) in (BASE..).step_by(LEN as usize).zip(names()) {
            writeln!(text, "{address:016x} T {name}").unwrap();
        }
        Stacks::from_kallsyms(text.as_bytes()).unwrap()
    }

    /// `a < b < c`, innermost first, as addresses.
    fn addresses(stack: &str) -> Vec<u64> {
        let address = |name: &str| {
            let index = names().position(|known| known == name).expect(name);
            // The call was the function's last instruction.
            BASE + LEN * (index as u64 + 1)
        };
        stack.split(" < ").map(address).chain([0, BASE]).collect()
    }

    fn check(cases: &[(&str, Path, Context)]) {
        let stacks = stacks();
        for (stack, path, context) in cases {
            assert_eq!(
                stacks.classify(&addresses(stack)),
                (*path, *context),
                "{stack}"
            );
        }
    }

    #[test]
    fn resets_by_the_running_task() {
        check(&[
            (
                "tcp_send_active_reset < __tcp_close < tcp_close < inet_release < __sock_release \
                 < sock_close < __fput < __x64_sys_close < do_syscall_64",
                Path::Close,
                Context::Process,
            ),
            // 5.10 and 6.1 close from task work; so does a process that is killed.
            (
                "tcp_send_active_reset < __tcp_close < tcp_close < inet_release < sock_close \
                 < __fput < task_work_run < do_exit < do_group_exit < get_signal \
                 < arch_do_signal_or_restart",
                Path::Close,
                Context::Process,
            ),
            // SO_LINGER 0.
            (
                "tcp_send_active_reset < tcp_disconnect < __tcp_close < tcp_close < inet_release",
                Path::Close,
                Context::Process,
            ),
            // connect(AF_UNSPEC).
            (
                "tcp_send_active_reset < tcp_disconnect < __inet_stream_connect < do_syscall_64",
                Path::Disconnect,
                Context::Process,
            ),
            (
                "tcp_send_active_reset < tcp_disconnect < inet_child_forget \
                 < inet_csk_listen_stop < __tcp_close < tcp_close < inet_release",
                Path::ListenerClose,
                Context::Process,
            ),
            // ss -K.
            (
                "tcp_send_active_reset < tcp_abort < tcp_diag_destroy < inet_diag_cmd_exact \
                 < netlink_rcv_skb < netlink_unicast < netlink_sendmsg < do_syscall_64",
                Path::Destroy,
                Context::Process,
            ),
            // A BPF program destroys: nothing on the way out is known.
            (
                "tcp_send_active_reset < tcp_abort < do_syscall_64",
                Path::Destroy,
                Context::Process,
            ),
            (
                "tcp_send_active_reset < mptcp_do_fastclose < __mptcp_close < mptcp_close \
                 < inet_release",
                Path::Mptcp,
                Context::Process,
            ),
            (
                "tcp_send_active_reset < mptcp_do_fastclose < __mptcp_unaccepted_force_close \
                 < mptcp_subflow_queue_clean < __mptcp_close",
                Path::Mptcp,
                Context::Process,
            ),
            // 6.6 closes a subflow with SO_LINGER 0.
            (
                "tcp_send_active_reset < tcp_disconnect < __tcp_close < __mptcp_close_ssk \
                 < mptcp_worker < process_one_work < worker_thread < kthread",
                Path::Mptcp,
                Context::Process,
            ),
            // Plain TCP connections in the queue of an MPTCP listener.
            (
                "tcp_send_active_reset < tcp_disconnect < inet_child_forget \
                 < inet_csk_listen_stop < mptcp_check_listen_stop < __mptcp_close",
                Path::ListenerClose,
                Context::Process,
            ),
        ]);
    }

    #[test]
    fn resets_by_timers_and_on_the_receive_path() {
        check(&[
            // A listener that is closed while a handshake ends on another CPU.
            (
                "tcp_send_active_reset < tcp_disconnect < inet_child_forget \
                 < inet_csk_complete_hashdance < tcp_check_req < tcp_v4_rcv < handle_softirqs \
                 < __tcp_transmit_skb < tcp_connect < __inet_stream_connect",
                Path::ListenerClose,
                Context::Interrupt,
            ),
            (
                "tcp_send_active_reset < tcp_keepalive_timer < call_timer_fn < __run_timers \
                 < run_timer_softirq < handle_softirqs < irq_exit_rcu < do_syscall_64",
                Path::KeepaliveTimer,
                Context::Interrupt,
            ),
            (
                "tcp_send_active_reset < tcp_out_of_resources < tcp_write_timer_handler \
                 < tcp_write_timer < call_timer_fn < run_timer_softirq < __do_softirq",
                Path::WriteTimer,
                Context::Interrupt,
            ),
            // The timer found the socket in use.
            (
                "tcp_send_active_reset < tcp_out_of_resources < tcp_write_timer_handler \
                 < tcp_release_cb < release_sock < tcp_sendmsg < do_syscall_64",
                Path::WriteTimer,
                Context::Interrupt,
            ),
            (
                "tcp_send_active_reset < mptcp_subflow_reset < subflow_data_ready \
                 < tcp_rcv_established < tcp_v4_do_rcv < tcp_v4_rcv < handle_softirqs",
                Path::Mptcp,
                Context::Interrupt,
            ),
            // Segments: the passive resets' stacks of the same sockets.
            (
                "tcp_v4_send_reset < tcp_v4_rcv < handle_softirqs < __tcp_transmit_skb \
                 < tcp_connect < tcp_v4_connect < __inet_stream_connect",
                Path::Unknown,
                Context::Interrupt,
            ),
            (
                "tcp_reset < tcp_rcv_state_process < tcp_v4_do_rcv < __release_sock \
                 < release_sock < __inet_stream_connect",
                Path::Unknown,
                Context::Process,
            ),
            (
                "tcp_reset < tcp_validate_incoming < tcp_rcv_established < tcp_v4_do_rcv \
                 < tcp_v4_rcv < handle_softirqs < __tcp_transmit_skb < tcp_send_active_reset \
                 < __tcp_close",
                Path::Unknown,
                Context::Interrupt,
            ),
            (
                "tcp_v4_send_reset < tcp_check_req < tcp_v4_rcv",
                Path::Unknown,
                Context::Interrupt,
            ),
        ]);
    }

    #[test]
    fn nothing_is_known_of_a_stack_without_known_frames() {
        let unknown = (Path::Unknown, Context::Unknown);
        let close = addresses("tcp_send_active_reset < __tcp_close");
        assert_eq!(Stacks::unreadable().classify(&close), unknown);
        let stacks = stacks();
        assert_eq!(stacks.classify(&[]), unknown);
        assert_eq!(stacks.classify(&[0, close[1]]), unknown);
        assert_eq!(stacks.classify(&[1, 2, u64::MAX, 0]), unknown);
        let only_others = addresses("tcp_send_active_reset < do_syscall_64");
        assert_eq!(stacks.classify(&only_others), unknown);
    }

    #[test]
    fn a_stack_that_may_be_cut_off_does_not_prove_the_task() {
        let stacks = stacks();
        let close = addresses("tcp_send_active_reset < tcp_disconnect < inet_child_forget");
        let verdict = stacks.classify(&close[..3]);
        assert_eq!(verdict, (Path::ListenerClose, Context::Unknown));
        let proven = addresses("tcp_send_active_reset < __tcp_close < inet_release");
        let verdict = stacks.classify(&proven[..3]);
        assert_eq!(verdict, (Path::Close, Context::Process));
    }

    #[test]
    fn every_path_has_its_precedence() {
        for path in FUNCTIONS.iter().filter_map(|function| function.path) {
            let mut paths = Paths::default();
            paths.add(path);
            assert_eq!(paths.most_specific(), path);
        }
    }

    proptest! {
        #[test]
        fn any_stack_is_taken(stack: Vec<u64>) {
            stacks().classify(&stack);
        }
    }
}
