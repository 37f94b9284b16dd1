//! Which resets user space wants to hear of. All are counted before this is asked.

use core::ptr::read_volatile;

use rstwatch_common::{
    entry::Tuple,
    filter::{IPV4, IPV6, KernelFilter, MOST_NETS, MOST_PORTS, Net},
};

use crate::globals::FILTER;

/// Whether anything is held back.
#[inline(always)]
pub fn is_on() -> bool {
    let filter = (&raw const FILTER).cast::<KernelFilter>();
    // SAFETY: as in `admits`.
    unsafe { read_volatile(&raw const (*filter).on) != 0 }
}

/// Whether a connection passes. The verifier knows the filter's values, and keeps of this only what
/// they need.
#[inline(always)]
pub fn admits(tuple: &Tuple) -> bool {
    let filter = (&raw const FILTER).cast::<KernelFilter>();
    // SAFETY: `Global<KernelFilter>` is a transparent wrapper of an initialised `KernelFilter`, of
    // which each value is read alone: loading all of it would copy it to the stack. Volatile,
    // because user space changes it after compilation.
    unsafe {
        !is_on()
            || family(filter, tuple)
                && (ports(filter, tuple.local_port, tuple.remote_port)
                    || ports(filter, tuple.remote_port, tuple.local_port))
                && nets(filter, tuple)
    }
}

/// Whether a connect may become a connection that passes. Its local port is 0 when it is still to be
/// chosen by the kernel.
#[inline(always)]
pub fn may_admit(tuple: &Tuple) -> bool {
    if tuple.local_port != 0 {
        return admits(tuple);
    }
    let filter = (&raw const FILTER).cast::<KernelFilter>();
    let remote = tuple.remote_port;
    // SAFETY: as in `admits`.
    unsafe {
        let any_local = read_volatile(&raw const (*filter).any_local) != 0;
        let any_remote = read_volatile(&raw const (*filter).any_remote) != 0;
        family(filter, tuple)
            && (any_local && is_remote(filter, remote) || any_remote && is_local(filter, remote))
            && nets(filter, tuple)
    }
}

/// # Safety
///
/// `filter` must be valid for reads.
#[inline(always)]
unsafe fn family(filter: *const KernelFilter, tuple: &Tuple) -> bool {
    // SAFETY: the caller's promise.
    let families = unsafe { read_volatile(&raw const (*filter).families) };
    let words = words(&tuple.local);
    let mapped = words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be();
    families == 0 || families & if mapped { IPV4 } else { IPV6 } != 0
}

/// # Safety
///
/// `filter` must be valid for reads.
#[inline(always)]
unsafe fn ports(filter: *const KernelFilter, local: u16, remote: u16) -> bool {
    // SAFETY: the caller's promise.
    unsafe { is_local(filter, local) && is_remote(filter, remote) }
}

/// # Safety
///
/// `filter` must be valid for reads.
#[inline(always)]
unsafe fn is_local(filter: *const KernelFilter, port: u16) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        one_of(
            &raw const (*filter).locals,
            &raw const (*filter).local,
            port,
        )
    }
}

/// # Safety
///
/// `filter` must be valid for reads.
#[inline(always)]
unsafe fn is_remote(filter: *const KernelFilter, port: u16) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        one_of(
            &raw const (*filter).remotes,
            &raw const (*filter).remote,
            port,
        )
    }
}

/// # Safety
///
/// Both pointers must be valid for reads.
#[inline(always)]
unsafe fn one_of(len: *const u32, ports: *const [u16; MOST_PORTS], port: u16) -> bool {
    // SAFETY: the caller's promise; the index lies in the array.
    unsafe {
        let len = read_volatile(len);
        for index in 0..MOST_PORTS {
            if index as u32 >= len {
                break;
            }
            if read_volatile(ports.cast::<u16>().add(index)) == port {
                return true;
            }
        }
        len == 0
    }
}

/// # Safety
///
/// `filter` must be valid for reads.
#[inline(always)]
unsafe fn nets(filter: *const KernelFilter, tuple: &Tuple) -> bool {
    // SAFETY: the caller's promise; the index lies in the array.
    unsafe {
        let len = read_volatile(&raw const (*filter).nets_len);
        for index in 0..MOST_NETS {
            if index as u32 >= len {
                break;
            }
            let net = (&raw const (*filter).nets).cast::<Net>().add(index);
            if contains(net, &tuple.local) || contains(net, &tuple.remote) {
                return true;
            }
        }
        len == 0
    }
}

/// # Safety
///
/// `net` must be valid for reads.
#[inline(always)]
unsafe fn contains(net: *const Net, addr: &[u8; 16]) -> bool {
    let words = words(addr);
    let mut differences = 0;
    for (at, word) in words.into_iter().enumerate() {
        // SAFETY: the caller's promise; the index lies in both arrays.
        unsafe {
            let mask = read_volatile((&raw const (*net).mask).cast::<u32>().add(at));
            let net = read_volatile((&raw const (*net).net).cast::<u32>().add(at));
            differences |= word & mask ^ net;
        }
    }
    differences == 0
}

/// An address as words, as they lie in memory.
#[inline(always)]
fn words(addr: &[u8; 16]) -> [u32; 4] {
    let words = (&raw const *addr).cast::<u32>();
    // SAFETY: the addresses of a `Tuple` are aligned to 4 bytes.
    unsafe { [*words, *words.add(1), *words.add(2), *words.add(3)] }
}
