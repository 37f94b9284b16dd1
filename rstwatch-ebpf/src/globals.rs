//! What user space tells the programs before they are loaded. Read-only: the verifier takes the
//! values for constants, and removes the code that they switch off.

use aya_ebpf::Global;
use rstwatch_common::{
    cast::Casts,
    filter::KernelFilter,
    layout::{ABSENT, Features, Layout},
};

/// Where the running kernel keeps its fields.
#[unsafe(no_mangle)]
pub static LAYOUT: Global<Layout> = Global::new(Layout::EMPTY);

/// What the running kernel can do.
#[unsafe(no_mangle)]
pub static FEATURES: Global<Features> = Global::new(Features {
    send_reset_reason: 0,
    current_task_btf: 0,
    destroy_sock: 0,
    two_rings: 0,
});

/// What pointers can be made into.
#[unsafe(no_mangle)]
pub static CASTS: Global<Casts> = Global::new(Casts::NONE);

/// Which resets user space wants to hear of.
#[unsafe(no_mangle)]
pub static FILTER: Global<KernelFilter> = Global::new(KernelFilter::ALL);

/// Records in each CPU's part of the history: a power of two.
#[unsafe(no_mangle)]
pub static HISTORY_PLACES: Global<u32> = Global::new(1);

/// Rows of chains of the history, a power of two, less one.
#[unsafe(no_mangle)]
pub static HISTORY_ROWS_MASK: Global<u32> = Global::new(0);

/// Slots of each CPU's lane: a power of two; 0: there are no lanes.
#[unsafe(no_mangle)]
pub static LANE_SLOTS: Global<u32> = Global::new(0);

/// The offset of one field of [`Layout`], [`ABSENT`] when the kernel has none.
macro_rules! offset_of_field {
    ($field:ident) => {
        $crate::globals::layout_entry::<
            { core::mem::offset_of!(rstwatch_common::layout::Layout, $field) },
        >()
    };
}
pub(crate) use offset_of_field;

/// The entry at byte `AT` of [`LAYOUT`]; for [`offset_of_field`] only. It reads that entry alone:
/// loading the whole structure would copy it to the stack.
#[inline(always)]
pub fn layout_entry<const AT: usize>() -> u16 {
    const { assert!(AT < size_of::<Layout>()) };
    let layout = (&raw const LAYOUT).cast::<u16>();
    // SAFETY: `Global<Layout>` is a transparent wrapper of an initialised `Layout`, which is made
    // of `u16`, and `AT` lies in it. Volatile, because user space changes the value after
    // compilation.
    unsafe { core::ptr::read_volatile(layout.byte_add(AT)) }
}

/// Whether a field of this offset exists.
#[inline(always)]
pub fn present(offset: u16) -> bool {
    offset != ABSENT
}

/// One field of [`FEATURES`], a byte: loading the whole structure would load each of them.
macro_rules! feature {
    ($field:ident) => {{
        let features = (&raw const FEATURES).cast::<Features>();
        // SAFETY: `Global<Features>` is a transparent wrapper of an initialised `Features`. Volatile, because user
        // space changes the value after compilation.
        unsafe { core::ptr::read_volatile(&raw const (*features).$field) != 0 }
    }};
}

/// Whether `tcp_send_reset` passes a reason.
#[inline(always)]
pub fn has_reason() -> bool {
    feature!(send_reset_reason)
}

/// Whether the kernel runs no program in the middle of itself on the same CPU (`bpf_trace_run1` and its like,
/// `kernel/trace/bpf_trace.c`, 6.1 and later), and every reset is told by the tracepoint's program.
#[inline(always)]
pub fn is_never_within_itself() -> bool {
    has_reason()
}

/// Whether `tcp_destroy_sock` tells when a socket goes.
#[inline(always)]
pub fn has_destroy_sock() -> bool {
    feature!(destroy_sock)
}

/// Whether CPUs with odd numbers fill a ring of their own.
#[inline(always)]
pub fn has_two_rings() -> bool {
    feature!(two_rings)
}

/// Whether `bpf_get_current_task_btf` may be called.
#[inline(always)]
pub fn has_current_task_btf() -> bool {
    feature!(current_task_btf)
}

/// The id of what any memory can be taken for; 0: nothing.
#[inline(always)]
pub fn words_id() -> u32 {
    let casts = (&raw const CASTS).cast::<Casts>();
    // SAFETY: `Global<Casts>` is a transparent wrapper of an initialised `Casts`. Volatile, because user space
    // changes the value after compilation.
    unsafe { core::ptr::read_volatile(&raw const (*casts).words) }
}

/// The id of `struct tcp_sock`; 0: nothing can be cast to it.
#[inline(always)]
pub fn tcp_sock_id() -> u32 {
    let casts = (&raw const CASTS).cast::<Casts>();
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const (*casts).tcp_sock) }
}

/// How many records each CPU's part of the history has.
#[inline(always)]
pub fn history_places() -> u32 {
    HISTORY_PLACES.load()
}

/// What makes a hash the index of a row of chains of the history.
#[inline(always)]
pub fn history_rows_mask() -> u32 {
    HISTORY_ROWS_MASK.load()
}

/// How many slots each CPU's lane has; 0: there are no lanes.
#[inline(always)]
pub fn lane_slots() -> u32 {
    LANE_SLOTS.load()
}
