//! The BPF programs of rstwatch: entry points only.
//!
//! Every hook has two entries with one body: a BTF tracepoint, which reads kernel structures
//! directly, and a raw tracepoint, which reads them through `bpf_probe_read_kernel`, for kernels
//! that refuse the first. User space loads one of the two.
//!
//! Two functions are hooked besides, where the tracepoint does not tell of every reset (before
//! 6.10): by fentry, else as a kprobe.
//!
//! - [`hook`]: what each tracepoint does.
//! - [`tally`], [`filter`]: every reset is counted, and some are told.
//! - [`socket`], [`segment`], [`netns`], [`task`]: reading what the kernel knows.
//! - [`clock`]: when it was; [`memory`]: the two ways to read it.
//! - [`live`], [`history`], [`maps`], [`lane`]: where it is kept and sent; [`per_cpu`], [`desk`]: by each CPU for
//!   itself; [`globals`]: what user space tells us.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    clippy::inline_always,
    reason = "a program is one function to the kernel: what is not inlined costs a call and a frame of the small stack"
)]
#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_ptr_alignment,
    reason = "fields of the kernel's and of the wire are reinterpreted; where alignment matters, the place says why it holds"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "a context is a pointer, and an entry point takes it as the attribute demands"
)]
#![expect(
    missing_docs,
    reason = "the attributes that make programs add functions without documentation"
)]

mod clock;
mod desk;
mod filter;
mod globals;
mod history;
mod hook;
mod lane;
mod live;
mod maps;
mod memory;
mod netns;
mod per_cpu;
mod segment;
mod socket;
mod tally;
mod task;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};

use rstwatch_common::desk::Desk;

use crate::memory::{Direct, Probe};

/// `tcp_send_reset(sk, skb[, reason])`: this host sends a RST.
#[btf_tracepoint(function = "tcp_send_reset")]
#[inline(always)]
pub fn btf_tcp_send_reset(ctx: BtfTracePointContext) -> u32 {
    if let Some(desk) = hook::interruptible() {
        btf_sent::<false>(&ctx, desk);
        hook::told(desk);
    }
    0
}

/// The same in the middle of [`btf_tcp_send_reset`].
#[btf_tracepoint(function = "tcp_send_reset")]
#[inline(always)]
pub fn btf_interrupting_tcp_send_reset(ctx: BtfTracePointContext) -> u32 {
    hook::interrupting(|desk| btf_sent::<true>(&ctx, desk));
    0
}

#[inline(always)]
fn btf_sent<const SECOND: bool>(ctx: &BtfTracePointContext, desk: *mut Desk) {
    // The verifier rejects a third argument where the tracepoint has two; it prunes the read when
    // the read-only global says so.
    let reason = globals::has_reason().then(|| ctx.arg::<u32>(2));
    hook::send_reset::<Direct, _, SECOND>(ctx, desk, ctx.arg(0), ctx.arg(1), reason);
}

/// `tcp_receive_reset(sk)`: a RST arrived, or data for a closed receiving side.
#[btf_tracepoint(function = "tcp_receive_reset")]
#[inline(always)]
pub fn btf_tcp_receive_reset(ctx: BtfTracePointContext) -> u32 {
    hook::receive_reset::<Direct, _>(&ctx, ctx.arg(0));
    0
}

/// `inet_sock_set_state(sk, old, new)`: a socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
#[inline(always)]
pub fn btf_inet_sock_set_state(ctx: BtfTracePointContext) -> u32 {
    hook::set_state::<Direct, _>(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// `tcp_destroy_sock(sk)`: a socket goes.
#[btf_tracepoint(function = "tcp_destroy_sock")]
#[inline(always)]
pub fn btf_tcp_destroy_sock(ctx: BtfTracePointContext) -> u32 {
    hook::destroy_sock::<Direct, _>(&ctx, ctx.arg(0));
    0
}

/// As [`btf_tcp_send_reset`].
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
#[inline(always)]
pub fn raw_tcp_send_reset(ctx: RawTracePointContext) -> u32 {
    if let Some(desk) = hook::interruptible() {
        raw_sent::<false>(&ctx, desk);
        hook::told(desk);
    }
    0
}

/// As [`btf_interrupting_tcp_send_reset`].
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
#[inline(always)]
pub fn raw_interrupting_tcp_send_reset(ctx: RawTracePointContext) -> u32 {
    hook::interrupting(|desk| raw_sent::<true>(&ctx, desk));
    0
}

#[inline(always)]
fn raw_sent<const SECOND: bool>(ctx: &RawTracePointContext, desk: *mut Desk) {
    let reason = globals::has_reason().then(|| ctx.arg::<u32>(2));
    hook::send_reset::<Probe, _, SECOND>(ctx, desk, ctx.arg(0), ctx.arg(1), reason);
}

/// As [`btf_tcp_receive_reset`].
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
#[inline(always)]
pub fn raw_tcp_receive_reset(ctx: RawTracePointContext) -> u32 {
    hook::receive_reset::<Probe, _>(&ctx, ctx.arg(0));
    0
}

/// As [`btf_inet_sock_set_state`].
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
#[inline(always)]
pub fn raw_inet_sock_set_state(ctx: RawTracePointContext) -> u32 {
    hook::set_state::<Probe, _>(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// As [`btf_tcp_destroy_sock`].
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
#[inline(always)]
pub fn raw_tcp_destroy_sock(ctx: RawTracePointContext) -> u32 {
    hook::destroy_sock::<Probe, _>(&ctx, ctx.arg(0));
    0
}

/// `tcp_v4_send_reset(sk, skb)`: an IPv4 segment may be answered with a RST.
#[fentry(function = "tcp_v4_send_reset")]
#[inline(always)]
pub fn fentry_tcp_v4_send_reset(ctx: FEntryContext) -> u32 {
    hook::old_send_reset::<Direct, _, { hook::IPV4 }>(&ctx, ctx.arg(0), ctx.arg(1));
    0
}

/// `tcp_v6_send_reset(sk, skb)`: an IPv6 segment may be answered with a RST.
#[fentry(function = "tcp_v6_send_reset")]
#[inline(always)]
pub fn fentry_tcp_v6_send_reset(ctx: FEntryContext) -> u32 {
    hook::old_send_reset::<Direct, _, { hook::IPV6 }>(&ctx, ctx.arg(0), ctx.arg(1));
    0
}

/// As [`fentry_tcp_v4_send_reset`].
#[kprobe(function = "tcp_v4_send_reset")]
#[inline(always)]
pub fn kprobe_tcp_v4_send_reset(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        hook::old_send_reset::<Probe, _, { hook::IPV4 }>(&ctx, sock, skb);
    }
    0
}

/// As [`fentry_tcp_v6_send_reset`].
#[kprobe(function = "tcp_v6_send_reset")]
#[inline(always)]
pub fn kprobe_tcp_v6_send_reset(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        hook::old_send_reset::<Probe, _, { hook::IPV6 }>(&ctx, sock, skb);
    }
    0
}

/// The kernel gives helpers such as `bpf_probe_read_kernel` to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier admits no path that gets here.
    loop {}
}
