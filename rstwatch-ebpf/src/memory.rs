//! The two ways to read kernel memory: directly, through pointers that the verifier knows the type
//! of, and with `bpf_probe_read_kernel`, through any pointer.

use core::{arch::asm, ffi::c_void, ptr::null};

use aya_ebpf::{
    helpers::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_map_lookup_elem, bpf_probe_read_kernel,
        bpf_probe_read_kernel_buf, bpf_skc_to_tcp_sock,
    },
    macros::map,
    maps::Array,
};
use rstwatch_common::{
    cast::{MOST_BYTES, PLACEHOLDER},
    stats::Stat,
};

use crate::{globals, maps};

/// A pointer into kernel memory.
pub type KernelPtr = *const u8;

/// A map with one element, and the index of another.
#[map]
static ONE: Array<u32> = Array::with_max_entries(1, 0);
static BEYOND: u32 = 1;

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

    /// Copies what is at `from`, whatever it is: a multiple of four bytes. Returns whether it could; typed loads may
    /// say so and give zeros.
    fn copy<const N: usize>(from: KernelPtr, to: &mut [u8; N]) -> bool;

    /// The full TCP socket behind `sock`, as a pointer from which the fields of `tcp_sock` and its
    /// embedded structures can be read; null when it is none.
    ///
    /// Pointers among the fields of `sock` itself are better read through it too: through an argument of the
    /// hook they keep newer verifiers busy for long (`check_ptr_to_btf_access`, `kernel/bpf/verifier.c`).
    ///
    /// # Safety
    ///
    /// `sock` must be a non-null socket argument of the hook, and not that of another protocol, a request or
    /// one in TIME_WAIT.
    unsafe fn tcp_sock(sock: KernelPtr) -> KernelPtr;

    /// The TCP socket at an address; null where that is not to be read without a call. There may be none any more: then
    /// what is read through it is anything.
    fn tcp_sock_at(address: u64) -> KernelPtr;

    /// The address that a socket argument of the hook is, as a number to calculate with.
    fn address(sock: KernelPtr) -> u64;

    /// The running task.
    fn current_task() -> KernelPtr;

    /// Runs a part of a program: as a function with a part of the stack of its own where the reads
    /// themselves need much of it.
    fn apart(part: impl FnOnce());
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
    fn copy<const N: usize>(from: KernelPtr, to: &mut [u8; N]) -> bool {
        const { assert!(N <= MOST_BYTES && N.is_multiple_of(size_of::<u32>())) };
        let id = globals::words_id();
        if id == 0 {
            return Probe::copy(from, to);
        }
        // SAFETY: the kernel handles faults in loads through such pointers, and gives zeros; the verifier knows that
        // there are so many words. `to` has room for `N` bytes.
        unsafe {
            let words = cast(from, id);
            let to = to.as_mut_ptr();
            let mut at = 0;
            while at + size_of::<u64>() <= N {
                let word = Self::read(words, at as u16);
                to.add(at).cast::<u64>().write_unaligned(word);
                at += size_of::<u64>();
            }
            if at < N {
                let word = Self::read(words, at as u16);
                to.add(at).cast::<u32>().write_unaligned(word);
            }
        }
        true
    }

    #[inline(always)]
    unsafe fn tcp_sock(sock: KernelPtr) -> KernelPtr {
        let id = globals::tcp_sock_id();
        if id != 0 {
            // SAFETY: the caller's promise.
            return unsafe { cast(sock, id) };
        }
        // SAFETY: the helper (5.9 and later) checks that it is a full TCP socket.
        unsafe { bpf_skc_to_tcp_sock(sock.cast_mut().cast::<c_void>()).cast() }
    }

    #[inline(always)]
    fn tcp_sock_at(address: u64) -> KernelPtr {
        let id = globals::tcp_sock_id();
        if id == 0 {
            return null();
        }
        // SAFETY: the kernel handles faults in loads through such pointers; the caller knows what it may read.
        unsafe { cast(address as KernelPtr, id) }
    }

    #[inline(always)]
    fn address(sock: KernelPtr) -> u64 {
        number(sock)
    }

    #[inline(always)]
    fn current_task() -> KernelPtr {
        // SAFETY: the helper takes no argument; the caller asks the feature flag first.
        unsafe { bpf_get_current_task_btf().cast() }
    }

    #[inline(always)]
    fn apart(part: impl FnOnce()) {
        part();
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
    fn copy<const N: usize>(from: KernelPtr, to: &mut [u8; N]) -> bool {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel_buf(from, to).is_ok() }
    }

    #[inline(always)]
    unsafe fn tcp_sock(sock: KernelPtr) -> KernelPtr {
        sock
    }

    #[inline(always)]
    fn tcp_sock_at(_address: u64) -> KernelPtr {
        null()
    }

    #[inline(always)]
    fn address(sock: KernelPtr) -> u64 {
        sock as u64
    }

    #[inline(always)]
    fn current_task() -> KernelPtr {
        // SAFETY: the helper takes no argument.
        (unsafe { bpf_get_current_task() }) as KernelPtr
    }

    #[inline(never)]
    fn apart(part: impl FnOnce()) {
        part();
    }
}

/// A pointer as one to the type with this id, which must not be 0; see [`rstwatch_common::cast`].
///
/// # Safety
///
/// Who reads through it must know what is there: the kernel takes anything for anything.
#[inline(always)]
unsafe fn cast(pointer: KernelPtr, id: u32) -> KernelPtr {
    let cast: KernelPtr;
    // SAFETY: a call of the kernel's function, which user space has filled in where there is an id, and which has no
    // effect; it takes two arguments, and the registers that any call takes.
    unsafe {
        asm!(
            ".8byte {call}",
            call = const PLACEHOLDER,
            in("r1") pointer,
            in("r2") id as u64,
            lateout("r0") cast,
            lateout("r1") _,
            lateout("r2") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
    cast
}

/// The address of a pointer that the verifier knows for one. It lets nobody calculate with that, but the
/// difference of two pointers is a number to it; and an element that a map does not have is at address 0.
#[inline(always)]
pub fn number(pointer: KernelPtr) -> u64 {
    let mut address = pointer as u64;
    // SAFETY: the map and the key are ours; nothing else is read or written.
    unsafe {
        let null = bpf_map_lookup_elem(
            (&raw const ONE).cast_mut().cast(),
            (&raw const BEYOND).cast(),
        );
        asm!("{0} -= {1}", inout(reg) address, in(reg) null);
    }
    address
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

/// Spreads a value over 64 bits, the highest best: a multiplicative hash (by the golden ratio).
#[inline(always)]
pub fn spread(value: u64) -> u64 {
    value.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Keeps what stands before it before what stands behind it. x86-64 keeps stores in their order, and
/// loads in theirs: there only the compiler must be told.
#[cfg(not(bpf_target_arch = "aarch64"))]
#[inline(always)]
pub fn barrier<T>(_own: *mut T) {
    // SAFETY: nothing is done.
    unsafe { asm!("") };
}

/// Keeps what stands before it before what stands behind it: an addition that fetches the old value is
/// a barrier (Linux 5.12 and later).
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn barrier<T>(own: *mut T) {
    // SAFETY: nothing is added.
    unsafe {
        asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) own, inout(reg) 0_u64 => _);
    };
}
