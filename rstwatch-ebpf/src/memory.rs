//! The two ways to read kernel memory: directly, through pointers that the verifier knows the type
//! of, and with `bpf_probe_read_kernel`, through any pointer.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_skc_to_tcp_sock,
};
use rstwatch_common::stats::Stat;

use crate::{globals, maps};

/// A pointer into kernel memory.
pub type KernelPtr = *const u8;

/// How a program reads structures behind its arguments.
pub trait Memory {
    /// Whether reads are typed loads, which cannot fail.
    const DIRECT: bool;

    /// Reads a `T` at `base + offset`; `T` is an integer of at most 8 bytes.
    ///
    /// # Safety
    ///
    /// `base` must be an argument of the hook, or have been read from one through this trait, and
    /// `offset` that of a field of its structure with `T`'s size. The verifier checks both for
    /// direct reads; for probed ones a wrong address gives zero and is counted.
    unsafe fn read<T: Copy + Default>(base: KernelPtr, offset: u16) -> T;

    /// The full TCP socket behind `sock`, as a pointer from which the fields of `tcp_sock` and its
    /// embedded structures can be read; null when it is none.
    ///
    /// # Safety
    ///
    /// `sock` must be a non-null socket argument of the hook.
    unsafe fn tcp_sock(sock: KernelPtr) -> KernelPtr;

    /// The running task.
    fn current_task() -> KernelPtr;
}

/// Typed loads (BTF tracepoints): no helper call.
pub struct Direct;

/// `bpf_probe_read_kernel` (raw tracepoints).
pub struct Probe;

impl Memory for Direct {
    const DIRECT: bool = true;

    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: KernelPtr, offset: u16) -> T {
        // SAFETY: the verifier admits the load only when `offset` lies in a field of the structure
        // that `base` points to, and the kernel handles faults in such loads. Volatile, so that
        // the compiler neither merges loads across fields nor assumes anything about the memory.
        unsafe { core::ptr::read_volatile(base.wrapping_add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    unsafe fn tcp_sock(sock: KernelPtr) -> KernelPtr {
        // SAFETY: the helper (5.9 and later) checks that it is a full TCP socket.
        unsafe { bpf_skc_to_tcp_sock(sock.cast_mut().cast::<c_void>()).cast() }
    }

    #[inline(always)]
    fn current_task() -> KernelPtr {
        // SAFETY: the helper takes no argument; the caller asks the feature flag first.
        unsafe { bpf_get_current_task_btf().cast() }
    }
}

impl Memory for Probe {
    const DIRECT: bool = false;

    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: KernelPtr, offset: u16) -> T {
        // SAFETY: the helper checks the address and fails on a bad one.
        unsafe { probe(base, offset) }
    }

    #[inline(always)]
    unsafe fn tcp_sock(sock: KernelPtr) -> KernelPtr {
        sock
    }

    #[inline(always)]
    fn current_task() -> KernelPtr {
        // SAFETY: the helper takes no argument.
        (unsafe { bpf_get_current_task() }) as KernelPtr
    }
}

/// Reads a `T` at `base + offset` with the helper, whatever the verifier knows of `base`; a failure
/// is counted and gives the default.
///
/// # Safety
///
/// None beyond what the helper checks; marked so that each use says what it reads.
#[inline(always)]
pub unsafe fn probe<T: Copy + Default>(base: KernelPtr, offset: u16) -> T {
    // SAFETY: see above.
    let read = unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) };
    if let Ok(value) = read {
        value
    } else {
        maps::count(Stat::ReadFailed);
        T::default()
    }
}

/// Reads a field when the kernel has it, else gives the default.
///
/// # Safety
///
/// As [`Memory::read`].
#[inline(always)]
pub unsafe fn read_if_present<M: Memory, T: Copy + Default>(base: KernelPtr, offset: u16) -> T {
    if globals::present(offset) {
        // SAFETY: the caller's promise.
        unsafe { M::read(base, offset) }
    } else {
        T::default()
    }
}
