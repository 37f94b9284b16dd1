//! What a role sets on a TCP socket or reads from it, beyond what the standard library knows.

use std::{mem::MaybeUninit, os::fd::AsRawFd, thread, time::Duration};

use nix::{errno::Errno, libc};

/// Repair mode that is left without a window probe (`TCP_REPAIR_OFF_NO_WP`, 4.19).
const REPAIR_OFF_WITHOUT_PROBE: libc::c_int = -1;

/// Queues of a connection in repair mode (`include/uapi/linux/tcp.h`).
const RECEIVE_QUEUE: libc::c_int = 1;
const SEND_QUEUE: libc::c_int = 2;

/// Sets an option of TCP that is a number.
pub(super) fn set(
    socket: &impl AsRawFd,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<(), Errno> {
    // SAFETY: the kernel reads the number, which has this length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// The number that a socket sends next, and the one that it expects next.
pub(super) fn sequence(socket: &impl AsRawFd) -> Result<(u32, u32), Errno> {
    let next = |queue| {
        set(socket, libc::TCP_REPAIR_QUEUE, queue)?;
        get::<u32>(socket, libc::TCP_QUEUE_SEQ)
    };
    set(socket, libc::TCP_REPAIR, 1)?;
    let numbers = next(SEND_QUEUE).and_then(|sent| Ok((sent, next(RECEIVE_QUEUE)?)));
    set(socket, libc::TCP_REPAIR, REPAIR_OFF_WITHOUT_PROBE)?;
    numbers
}

/// Waits until nothing has come over a connection for so long, be it data or an ACK.
pub(super) fn await_silence(socket: &impl AsRawFd, wanted: Duration) -> Result<(), Errno> {
    loop {
        let info: libc::tcp_info = get(socket, libc::TCP_INFO)?;
        let silent = info.tcpi_last_data_recv.min(info.tcpi_last_ack_recv);
        match wanted.checked_sub(Duration::from_millis(silent.into())) {
            // Only time makes a connection idle.
            Some(rest) if !rest.is_zero() => thread::sleep(rest),
            _ => return Ok(()),
        }
    }
}

/// Reads an option of TCP: a number, or a structure of them.
fn get<T: Copy>(socket: &impl AsRawFd, option: libc::c_int) -> Result<T, Errno> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most this length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    // SAFETY: the types asked for consist of numbers, for which zeros, where the kernel wrote
    // nothing, are valid.
    Errno::result(result).map(|_| unsafe { value.assume_init() })
}
