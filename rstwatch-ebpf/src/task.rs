//! Reading the running task. Whether it has anything to do with a reset is not decided here.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map};
use rstwatch_common::{
    COMM_LEN,
    entry::{PF_EXITING, TASK_OOM, Task},
};

use crate::{
    globals::{has_current_task_btf, offset_of_field, present},
    memory::{KernelPtr, Memory, Probe, probe, spread},
    per_cpu::PerCpu,
};

/// Threads that a CPU remembers: a power of two.
const THREADS: usize = 64;

/// How long a user id that has been read is taken for what it still is, in nanoseconds.
const KEPT_NS: u64 = 100_000_000;

/// What a thread had to fetch from afar: when its process began, which stands beside what the scheduler
/// counts for the process's first thread; and its user id, in cache lines that each socket's file writes
/// to, whichever CPU opens it (`get_cred`, `include/linux/cred.h`, sets `non_rcu`, and counts). Waiting for
/// the two took half of `inet_sock_set_state`'s time.
#[repr(C)]
struct Fetched {
    start_ns: u64,
    uid: u64,
    /// When they were read, as [`crate::clock::lately`] has it, or a hook of a reset.
    read_ns: u64,
    /// [`check`] of these three and of the thread: a program that runs in the middle of this one may have
    /// written some of them.
    check: u64,
}

#[map]
static FETCHED: PerCpu<[Fetched; THREADS]> = PerCpu::new();

/// Fills `task` with the running task: ids of the thread and its group, and what tells the process
/// from another one with the same PID. `now_ns` is the time, by
/// `CLOCK_MONOTONIC`, as of this jiffy.
///
/// # Safety
///
/// `task` must be valid for writes.
#[inline(always)]
pub unsafe fn fill_current<M: Memory>(task: *mut Task, now_ns: u64) {
    // Typed reads need `bpf_get_current_task_btf`, which 5.10 lacks.
    if M::DIRECT && has_current_task_btf() {
        // SAFETY: the caller's promise; the pointer is the running task.
        unsafe { fill::<M>(task, M::current_task(), now_ns) }
    } else {
        // SAFETY: as above.
        unsafe { fill::<Probe>(task, Probe::current_task(), now_ns) }
    }
}

/// # Safety
///
/// `task` must be valid for writes, `current` be the running task as `M` reads it.
#[inline(always)]
unsafe fn fill<M: Memory>(task: *mut Task, current: KernelPtr, now_ns: u64) {
    // SAFETY: the caller's promise; the offsets are those of `task_struct`.
    unsafe {
        let leader: u64 = M::read(current, offset_of_field!(task_group_leader));
        let leader = leader as KernelPtr;
        // One call of a helper is less than two, but more than two loads.
        if M::DIRECT {
            (*task).pid = M::read(current, offset_of_field!(task_tgid));
            (*task).tid = M::read(current, offset_of_field!(task_pid));
        } else {
            let ids = bpf_get_current_pid_tgid();
            (*task).pid = (ids >> 32) as u32;
            (*task).tid = ids as u32;
        }
        let flags = M::read(current, offset_of_field!(task_flags));
        // What lies farther away is asked only of a task that is exiting.
        let (exit_code, marks) = if flags & PF_EXITING == 0 {
            (0, 0)
        } else {
            let exit_code = M::read(current, offset_of_field!(task_exit_code));
            (exit_code, marks(current))
        };
        (*task).flags = flags;
        (*task).exit_code = exit_code;
        (*task).marks = marks;
        let comm = offset_of_field!(task_comm);
        let halves = (&raw mut (*task).comm).cast::<[u64; COMM_LEN / 8]>();
        (*halves)[0] = M::read(leader, comm);
        (*halves)[1] = M::read(leader, comm + 8);
        fetch::<M>(task, current, leader, now_ns);
    }
}

/// Fills in when the task's process began and its real user id, as it is or was at most [`KEPT_NS`] ago.
///
/// # Safety
///
/// As [`fill`]; `leader` must be the first thread of the process, as `M` reads it.
#[inline(always)]
unsafe fn fetch<M: Memory>(task: *mut Task, current: KernelPtr, leader: KernelPtr, now_ns: u64) {
    // SAFETY: the caller's promise; the map gives pointers that are valid for both.
    unsafe {
        let cred = M::read::<u64>(current, offset_of_field!(task_real_cred)) as KernelPtr;
        // A thread that gets other credentials is another one here.
        let began: u64 = M::read(current, offset_of_field!(task_start_boottime));
        let address = spread(M::address(current));
        let thread = spread(address ^ began) ^ M::address(cred);
        // By the address alone, so that the place is known before the rest has been read.
        let place = FETCHED.place((address >> 32) as usize);
        if let Some(place) = place {
            let start_ns = read_volatile(&raw const (*place).start_ns);
            let uid = read_volatile(&raw const (*place).uid);
            let read_ns = read_volatile(&raw const (*place).read_ns);
            if read_volatile(&raw const (*place).check) == check(thread, start_ns, uid, read_ns)
                && now_ns.wrapping_sub(read_ns) < KEPT_NS
            {
                (*task).start_ns = start_ns;
                (*task).uid = uid as u32;
                return;
            }
        }
        let start_ns = M::read(leader, offset_of_field!(task_start_boottime));
        let uid = uid_of::<M>(cred);
        (*task).start_ns = start_ns;
        (*task).uid = uid;
        let Some(place) = place else {
            return;
        };
        write_volatile(&raw mut (*place).start_ns, start_ns);
        write_volatile(&raw mut (*place).uid, u64::from(uid));
        write_volatile(&raw mut (*place).read_ns, now_ns);
        let check = check(thread, start_ns, u64::from(uid), now_ns);
        write_volatile(&raw mut (*place).check, check);
    }
}

/// What says that the others belong together: wrong ones have it once in very many.
#[inline(always)]
fn check(thread: u64, start_ns: u64, uid: u64, read_ns: u64) -> u64 {
    // Never 0 in a place that nobody has written to.
    !spread(spread(thread ^ start_ns) ^ uid.rotate_left(32) ^ read_ns)
}

/// The real user id of credentials, in the initial user namespace. It is read from what is kept for the
/// user: a task that changes its real user id gets that user's (`set_user`, `kernel/sys.c`).
///
/// # Safety
///
/// `cred` must have been read from the running task through `M`.
#[inline(always)]
unsafe fn uid_of<M: Memory>(cred: KernelPtr) -> u32 {
    // SAFETY: the caller's promise. A task has credentials, and they a user; the verifier does not know.
    unsafe {
        if cred.is_null() {
            return 0;
        }
        let user = M::read::<u64>(cred, offset_of_field!(cred_user)) as KernelPtr;
        if user.is_null() {
            return 0;
        }
        M::read(user, offset_of_field!(user_uid))
    }
}

/// What else is to be said of a task that is exiting.
///
/// # Safety
///
/// `current` must be the running task.
#[inline(always)]
unsafe fn marks(current: KernelPtr) -> u32 {
    let (signal, oom_mm) = (
        offset_of_field!(task_signal),
        offset_of_field!(signal_oom_mm),
    );
    if !present(signal) || !present(oom_mm) {
        return 0;
    }
    // SAFETY: the caller's promise; a task has its `signal_struct` until after its files are closed. With
    // the helper, as this is seldom asked: what a typed load costs, it costs the verifier at each start.
    unsafe {
        let signal = probe::<u64>(current, signal) as KernelPtr;
        // The OOM killer remembers the memory of its victim (`mark_oom_victim`, `mm/oom_kill.c`).
        if probe::<u64>(signal, oom_mm) == 0 {
            0
        } else {
            TASK_OOM
        }
    }
}
