//! Reading the running task. Whether it has anything to do with a reset is not decided here.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use rstwatch_common::{
    COMM_LEN,
    entry::{PF_EXITING, TASK_OOM, Task},
};

use crate::{
    globals::{has_current_task_btf, offset_of_field, present},
    memory::{KernelPtr, Memory, Probe, probe},
};

/// Fills `task` with the running task: ids of the thread and its group, and what tells the process
/// from another one with the same PID.
///
/// # Safety
///
/// `task` must be valid for writes.
#[inline(always)]
pub unsafe fn fill_current<M: Memory>(task: *mut Task) {
    // Typed reads need `bpf_get_current_task_btf`, which 5.10 lacks.
    if M::DIRECT && has_current_task_btf() {
        // SAFETY: the caller's promise; the pointer is the running task.
        unsafe { fill::<M>(task, M::current_task()) }
    } else {
        // SAFETY: as above.
        unsafe { fill::<Probe>(task, Probe::current_task()) }
    }
}

/// # Safety
///
/// `task` must be valid for writes, `current` be the running task as `M` reads it.
#[inline(always)]
unsafe fn fill<M: Memory>(task: *mut Task, current: KernelPtr) {
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
        (*task).uid = uid::<M>(current);
        (*task).flags = M::read(current, offset_of_field!(task_flags));
        (*task).exit_code = M::read(current, offset_of_field!(task_exit_code));
        (*task).marks = marks(current, (*task).flags);
        (*task).start_ns = M::read(leader, offset_of_field!(task_start_boottime));
        let comm = offset_of_field!(task_comm);
        let halves = (&raw mut (*task).comm).cast::<[u64; COMM_LEN / 8]>();
        (*halves)[0] = M::read(leader, comm);
        (*halves)[1] = M::read(leader, comm + 8);
    }
}

/// The real user id, in the initial user namespace. It is read from what is kept for the user, and not
/// from the credentials, which name it beside the count of their references: each file that a
/// process opens on any CPU writes to that cache line. A task that changes its real user id gets that
/// user's (`set_user`, `kernel/sys.c`).
///
/// # Safety
///
/// `current` must be the running task as `M` reads it.
#[inline(always)]
unsafe fn uid<M: Memory>(current: KernelPtr) -> u32 {
    // SAFETY: the caller's promise; each pointer comes from the field before it. A task has
    // credentials, and they a user; the verifier does not know.
    unsafe {
        let cred = M::read::<u64>(current, offset_of_field!(task_real_cred)) as KernelPtr;
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

/// What else is to be said of a task: asked only of one that is exiting.
///
/// # Safety
///
/// `current` must be the running task, `flags` its flags.
#[inline(always)]
unsafe fn marks(current: KernelPtr, flags: u32) -> u32 {
    let (signal, oom_mm) = (
        offset_of_field!(task_signal),
        offset_of_field!(signal_oom_mm),
    );
    if flags & PF_EXITING == 0 || !present(signal) || !present(oom_mm) {
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
