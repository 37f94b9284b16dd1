//! The little of `io_uring` that a role needs: one operation at a time, on a ring of two entries
//! with one direct descriptor. The numbers and layouts are those of `include/uapi/linux/io_uring.h`.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage},
};

const OFFSET_OF_ENTRIES: libc::off_t = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;
const REGISTER_FILES: u32 = 2;
const OP_ACCEPT: u8 = 13;
const OP_CONNECT: u8 = 16;
const OP_CLOSE: u8 = 19;
const OP_SOCKET: u8 = 45;
const SQE_FIXED_FILE: u8 = 1;

/// The direct descriptor, as `file_index` names it: counted from one.
const DIRECT: u32 = 1;

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq: SubmissionOffsets,
    cq: CompletionOffsets,
}

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Default)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Default)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buf_index: u16,
    personality: u16,
    file_index: u32,
    addr3: u64,
    pad: u64,
}

/// `struct io_uring_cqe`.
#[repr(C)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A piece of memory shared with the kernel.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the value, whichever thread holds it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(ring: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The place of a `T` at `offset`, which must be aligned for it and inside.
    fn at<T>(&self, offset: u32) -> *mut T {
        assert!(offset as usize + size_of::<T>() <= self.len);
        // SAFETY: the sum stays inside of the mapping.
        unsafe { self.start.as_ptr().add(offset as usize) }.cast()
    }

    /// A counter that the kernel reads or writes at the same time.
    fn counter(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: inside of the mapping, aligned as the kernel lays it out, and shared with the
        // kernel only through atomic accesses.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A ring.
#[derive(Debug)]
pub(super) struct Ring {
    fd: OwnedFd,
    rings: Mapping,
    entries: Mapping,
    sq_tail: u32,
    sq_array: u32,
    cq_head: u32,
    cqes: u32,
    cq_mask: u32,
}

impl Ring {
    /// Makes a ring with room for one direct descriptor.
    pub(super) fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: the kernel reads and fills `params`, which has the layout that it expects.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, &raw mut params) };
        // SAFETY: the kernel has just opened it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(checked(fd)?) };
        let completions =
            params.cq.cqes as usize + params.cq_entries as usize * size_of::<Completion>();
        let submissions = params.sq.array as usize + params.sq_entries as usize * size_of::<u32>();
        // One mapping holds both rings (`IORING_FEAT_SINGLE_MMAP`, 5.4).
        let rings = Mapping::new(borrow(&fd), completions.max(submissions), 0)?;
        let entries = Mapping::new(
            borrow(&fd),
            params.sq_entries as usize * size_of::<Submission>(),
            OFFSET_OF_ENTRIES,
        )?;
        let empty: [RawFd; 1] = [-1];
        // SAFETY: the kernel reads one descriptor from `empty`.
        checked(unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                fd.as_raw_fd(),
                REGISTER_FILES,
                empty.as_ptr(),
                empty.len(),
            )
        })?;
        Ok(Self {
            fd,
            rings,
            entries,
            sq_tail: params.sq.tail,
            sq_array: params.sq.array,
            cq_head: params.cq.head,
            cqes: params.cq.cqes,
            cq_mask: params.cq_entries - 1,
        })
    }

    /// Accepts a connection as an ordinary descriptor.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let fd = self.run(Submission {
            opcode: OP_ACCEPT,
            fd: listener.as_raw_fd(),
            op_flags: libc::SOCK_CLOEXEC.cast_unsigned(),
            ..Submission::default()
        })?;
        // SAFETY: the kernel has just opened it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Accepts a connection as the direct descriptor, which no descriptor table shows.
    pub(super) fn accept_direct(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        self.run(Submission {
            opcode: OP_ACCEPT,
            fd: listener.as_raw_fd(),
            file_index: DIRECT,
            ..Submission::default()
        })
        .map(drop)
    }

    /// Connects a socket.
    pub(super) fn connect(&mut self, socket: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
        let address = SockaddrStorage::from(to);
        self.run(Submission {
            opcode: OP_CONNECT,
            fd: socket.as_raw_fd(),
            addr: address.as_ptr() as u64,
            off: address.len().into(),
            ..Submission::default()
        })
        .map(drop)
    }

    /// Opens the direct descriptor as a socket and connects it.
    pub(super) fn connect_direct(&mut self, to: SocketAddr) -> io::Result<()> {
        let family = if to.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        self.run(Submission {
            opcode: OP_SOCKET,
            fd: family as i32,
            off: u64::from(libc::SOCK_STREAM.cast_unsigned()),
            file_index: DIRECT,
            ..Submission::default()
        })?;
        let address = SockaddrStorage::from(to);
        self.run(Submission {
            opcode: OP_CONNECT,
            flags: SQE_FIXED_FILE,
            addr: address.as_ptr() as u64,
            off: address.len().into(),
            ..Submission::default()
        })
        .map(drop)
    }

    /// Closes the direct descriptor.
    pub(super) fn close_direct(&mut self) -> io::Result<()> {
        self.run(Submission {
            opcode: OP_CLOSE,
            file_index: DIRECT,
            ..Submission::default()
        })
        .map(drop)
    }

    /// Submits an operation and waits for its result.
    fn run(&mut self, submission: Submission) -> io::Result<RawFd> {
        // Nothing else is under way, so the first entry is free.
        // SAFETY: inside of the mapping, which is page-aligned; the kernel reads it only once the
        // tail has moved.
        unsafe { self.entries.at::<Submission>(0).write(submission) };
        let tail = self.rings.counter(self.sq_tail);
        let number = tail.load(Ordering::Relaxed);
        // The place in the array that the tail stands at, of two.
        self.rings
            .counter(self.sq_array + (number & 1) * 4)
            .store(0, Ordering::Relaxed);
        tail.store(number.wrapping_add(1), Ordering::Release);
        // SAFETY: no memory is passed.
        checked(unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                1,
                ENTER_GETEVENTS,
                ptr::null::<libc::c_void>(),
                0,
            )
        })?;
        let head = self.rings.counter(self.cq_head);
        let number = head.load(Ordering::Relaxed);
        let at = self.cqes + (number & self.cq_mask) * size_of::<Completion>() as u32;
        // SAFETY: the kernel has completed it before it let us go on.
        let result = unsafe { (*self.rings.at::<Completion>(at)).result };
        head.store(number.wrapping_add(1), Ordering::Release);
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(result)
    }
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    use std::os::fd::AsFd as _;
    fd.as_fd()
}

fn checked(result: libc::c_long) -> io::Result<RawFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
    };

    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Params>(), 120);
        assert_eq!(size_of::<Submission>(), 64);
        assert_eq!(size_of::<Completion>(), 16);
    }

    #[test]
    fn a_ring_accepts_and_connects_more_often_than_it_has_entries() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ring = Ring::new().unwrap();
        for _ in 0..5 {
            ring.connect_direct(address).unwrap();
            let mut accepted = TcpStream::from(ring.accept(listener.as_fd()).unwrap());
            ring.close_direct().unwrap();
            assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0);

            let mut stream = TcpStream::connect(address).unwrap();
            ring.accept_direct(listener.as_fd()).unwrap();
            stream.write_all(b"x").unwrap();
            ring.close_direct().unwrap();
            assert!(stream.read(&mut [0; 1]).is_err());
        }
    }
}
