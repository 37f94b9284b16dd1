//! The inode of a network namespace, which lies beside the count of its references: each socket that any
//! CPU opens or closes writes to that cache line, and in a storm on two CPUs waiting for it took two thirds
//! of a hook's time. So each CPU keeps those that it has read, by the namespace's cookie, which is written
//! once and stands in a line that nobody writes to (`struct net`, `include/net/net_namespace.h`).

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::macros::map;

use crate::{
    globals::{offset_of_field, present},
    memory::{KernelPtr, Memory},
    per_cpu::PerCpu,
};

/// Places of a CPU: a power of two.
const PLACES: usize = 16;

/// In each place the lower half of a cookie above the inode of its namespace. One word, so that a program
/// that interrupts another one never leaves one's cookie beside the other's inode. Between
/// two namespaces with the same half there were four billion others.
#[map]
static INODES: PerCpu<[u64; PLACES]> = PerCpu::new();

/// The inode of a network namespace; 0 for null.
///
/// # Safety
///
/// `net` must be null or have been read as one through `M`.
#[inline(never)]
pub unsafe fn inode<M: Memory>(net: KernelPtr) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { inode_here::<M>(net) }
}

/// The same without a call, which hooks of storms can do without.
///
/// # Safety
///
/// As [`inode`].
#[inline(always)]
pub unsafe fn inode_here<M: Memory>(net: KernelPtr) -> u32 {
    if net.is_null() {
        return 0;
    }
    let cookie_at = offset_of_field!(net_cookie);
    // SAFETY: the caller's promise; the map gives pointers that are valid for both.
    unsafe {
        let inode_at = offset_of_field!(net_inum);
        if !present(cookie_at) {
            return M::read(net, inode_at);
        }
        let cookie = M::read::<u64>(net, cookie_at) as u32;
        let Some(place) = INODES.place(cookie as usize) else {
            return M::read(net, inode_at);
        };
        let known = read_volatile(place);
        // Before 5.12 a namespace has none before it is asked for.
        if cookie != 0 && (known >> 32) as u32 == cookie {
            return known as u32;
        }
        let inode = M::read(net, inode_at);
        write_volatile(place, u64::from(cookie) << 32 | u64::from(inode));
        inode
    }
}
