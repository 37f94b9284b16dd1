//! From a cgroup's id, which the kernel keeps with every socket, to its place: also when no process
//! is left to ask, and when the cgroup itself has gone.
//!
//! The id is the inode number of the directory in the unified hierarchy, and is not used twice. A
//! thread of its own lists the hierarchy and watches it for new cgroups, so that a container which
//! lives for a few milliseconds is remembered. What it missed, the kernel is asked for by id: a
//! file handle of kernfs holds nothing else.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};

use super::{place, recent::Recent};
use crate::event::Place;

/// Cgroups in a generation of those that are remembered.
const GENERATION: usize = 4_096;

/// Cgroups that are watched for new ones below them. The kernel keeps about a kilobyte for each.
const MOST_WATCHED: usize = 8_192;

/// Where systemd, as PID 1, lives itself: it makes the sockets of the units that are started by
/// their first connection, which do not live there.
const INIT: &str = "/init.scope";

/// Where the unified hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// Path of the mounted cgroup, seen from the root of the reader's cgroup namespace; empty for
    /// that root itself.
    root: String,
}

/// Whether the unified hierarchy is mounted where this process sees it.
pub fn is_mounted() -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|info| Mount::find(&info).is_some())
}

impl Mount {
    /// The mount of the unified hierarchy in `/proc/self/mountinfo` that shows the most of it.
    fn find(mountinfo: &str) -> Option<Self> {
        mountinfo
            .lines()
            .filter_map(|line| {
                let (mount, kind) = line.split_once(" - ")?;
                kind.starts_with("cgroup2 ").then_some(())?;
                let mut fields = mount.split(' ').skip(3);
                let (root, point) = (fields.next()?, fields.next()?);
                Some(Self {
                    point: PathBuf::from(unescape(point)),
                    root: unescape(root).trim_end_matches('/').to_owned(),
                })
            })
            // One from outside the namespace begins with `/..` and is the larger the more there are.
            .min_by_key(|mount| {
                let above = mount.root.matches("/..").count();
                (usize::MAX - above, mount.root.len())
            })
    }

    /// The cgroup's path of a directory in this mount.
    fn cgroup(&self, directory: &Path) -> Option<String> {
        let below = directory.strip_prefix(&self.point).ok()?;
        let below = String::from_utf8_lossy(below.as_os_str().as_bytes());
        Some(match (&*self.root, &*below) {
            ("", "") => "/".to_owned(),
            (root, "") => root.to_owned(),
            (root, below) => format!("{root}/{below}"),
        })
    }
}

/// `mountinfo` writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escaped, plain)| {
        text.replace(escaped, plain)
    })
}

/// Paths by id, filled by the watching thread.
type Paths = Arc<Mutex<Recent<u64, Arc<str>>>>;

/// Places by cgroup id.
#[derive(Debug)]
pub struct Cgroups {
    known: Recent<u64, Option<Rc<Place>>>,
    hierarchy: Option<Hierarchy>,
}

#[derive(Debug)]
struct Hierarchy {
    mount: Mount,
    /// Any file in it: what a handle is opened with.
    file: File,
    paths: Paths,
    /// The watching thread ends when this is closed.
    _ends: Option<PipeWriter>,
}

impl Cgroups {
    /// Knows nothing.
    pub fn none() -> Self {
        Self {
            known: Recent::new(GENERATION),
            hierarchy: None,
        }
    }

    /// Begins to list and watch the unified hierarchy. Where there is none, or it cannot be read,
    /// no cgroup gets a place by its id.
    pub fn watch() -> Self {
        Self {
            hierarchy: Hierarchy::open(),
            ..Self::none()
        }
    }

    /// The place of the cgroup with this id; none for the root, which on a host with the old
    /// hierarchies holds everything.
    pub fn place(&mut self, id: u64) -> Option<Rc<Place>> {
        if let Some(place) = self.known.get(&id) {
            return place;
        }
        let place = self
            .hierarchy
            .as_ref()
            .and_then(|hierarchy| hierarchy.path(id))
            .filter(|path| !matches!(&**path, "/" | INIT))
            .map(|path| Rc::new(place::from_path(&path)));
        self.known.insert(id, place.clone());
        place
    }
}

impl Hierarchy {
    fn open() -> Option<Self> {
        let mount = Mount::find(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let file = File::open(&mount.point).ok()?;
        let paths: Paths = Arc::new(Mutex::new(Recent::new(GENERATION)));
        // Without the thread there is still the kernel to ask for cgroups that live.
        let ends = Watcher::start(mount.clone(), Arc::clone(&paths)).ok();
        Some(Self {
            mount,
            file,
            paths,
            _ends: ends,
        })
    }

    fn path(&self, id: u64) -> Option<Arc<str>> {
        let seen = lock(&self.paths).get(&id);
        seen.or_else(|| {
            let directory = open_by_id(&self.file, id).ok()?;
            let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
            self.mount.cgroup(&fs::read_link(link).ok()?).map(Arc::from)
        })
    }
}

fn lock(paths: &Mutex<Recent<u64, Arc<str>>>) -> std::sync::MutexGuard<'_, Recent<u64, Arc<str>>> {
    // A panic elsewhere leaves a map that is as good as before.
    paths.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the cgroup with this id, in the hierarchy that `file` is in.
fn open_by_id(file: &File, id: u64) -> io::Result<OwnedFd> {
    /// `struct file_handle` with kernfs's content (`include/linux/exportfs.h`, 5.5 and later).
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: u64,
    }
    const FILEID_KERNFS: i32 = 0xfe;
    let mut handle = Handle {
        bytes: size_of::<u64>() as u32,
        kind: FILEID_KERNFS,
        id,
    };
    // SAFETY: the handle has the layout of `struct file_handle`, its size field tells how much
    // follows, and the kernel only reads it.
    let fd = unsafe {
        libc::open_by_handle_at(
            file.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just opened it for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lists the hierarchy, and follows what is made in it.
struct Watcher {
    mount: Mount,
    paths: Paths,
    inotify: Inotify,
    watched: HashMap<WatchDescriptor, PathBuf>,
}

impl Watcher {
    /// Starts the thread; it ends when the returned end of a pipe is closed.
    fn start(mount: Mount, paths: Paths) -> io::Result<PipeWriter> {
        let (stop, ends) = io::pipe()?;
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let mut watcher = Self {
            mount,
            paths,
            inotify: Inotify::init(flags)?,
            watched: HashMap::new(),
        };
        thread::Builder::new()
            .name("cgroups".to_owned())
            .spawn(move || watcher.run(stop))?;
        Ok(ends)
    }

    fn run(&mut self, mut stop: PipeReader) {
        self.list(self.mount.point.clone());
        loop {
            let mut fds = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            // Nothing is ever written: it is readable when the other end has been closed.
            if fds[1].any() == Some(true) && stop.read(&mut [0]).is_ok() {
                return;
            }
            self.follow();
        }
    }

    /// Takes in what was made and removed.
    fn follow(&mut self) {
        let Ok(events) = self.inotify.read_events() else {
            return;
        };
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                self.list(self.mount.point.clone());
            } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.watched.remove(&event.wd);
            } else if event.mask.contains(AddWatchFlags::IN_ISDIR)
                && let Some(parent) = self.watched.get(&event.wd)
                && let Some(name) = &event.name
            {
                self.list(parent.join(name));
            }
        }
    }

    /// Remembers the cgroup at `directory` and those below it. Each is watched before it is read,
    /// so that none is made in between.
    fn list(&mut self, directory: PathBuf) {
        let mut left = vec![directory];
        while let Some(directory) = left.pop() {
            let Ok(metadata) = fs::metadata(&directory) else {
                continue;
            };
            if let Some(path) = self.mount.cgroup(&directory) {
                lock(&self.paths).insert(metadata.ino(), Arc::from(path));
            }
            if self.watched.len() < MOST_WATCHED
                && let Ok(watch) = self.inotify.add_watch(
                    &directory,
                    AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR,
                )
            {
                self.watched.insert(watch, directory.clone());
            }
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            left.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_mount_that_shows_the_most_is_taken() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let mount = Mount::find(hybrid).unwrap();
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount.root, "");

        let from_outside = "1 2 0:38 /docker/x /mnt/own\\040group rw - cgroup2 cgroup2 rw\n\
                            1 2 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                            1 2 0:38 /../.. /host/cgroup rw master:1 - cgroup2 cgroup2 rw\n\
                            1 2 0:38 /.. /mnt rw - cgroup2 cgroup2 rw\n";
        let mount = Mount::find(from_outside).unwrap();
        assert_eq!(mount.point, Path::new("/host/cgroup"));
        assert_eq!(mount.root, "/../..");
        let lines: Vec<_> = from_outside.lines().collect();
        let part = Mount::find(lines[0]).unwrap();
        assert_eq!(part.point, Path::new("/mnt/own group"));
        assert_eq!(part.root, "/docker/x");

        assert_eq!(Mount::find("1 2 0:1 / / rw - ext4 /dev/sda rw\n"), None);
        assert_eq!(Mount::find("garbage - cgroup2 x\n"), None);
    }

    #[test]
    fn directories_are_named_as_proc_names_them() {
        let cases = [
            ("", "/cg", "/"),
            ("", "/cg/a/b", "/a/b"),
            ("/docker/x", "/cg", "/docker/x"),
            ("/docker/x", "/cg/a", "/docker/x/a"),
            ("/../..", "/cg/system.slice", "/../../system.slice"),
        ];
        for (root, directory, path) in cases {
            let mount = Mount {
                point: "/cg".into(),
                root: root.to_owned(),
            };
            assert_eq!(mount.cgroup(Path::new(directory)).as_deref(), Some(path));
            assert_eq!(mount.cgroup(Path::new("/elsewhere")), None);
        }
    }

    /// A directory tree stands for the hierarchy: what is watched and listed is the same.
    #[test]
    fn what_is_made_while_watching_is_known_after_it_has_gone() {
        let point = std::env::temp_dir().join(format!("rstwatch-cgroups-{}", std::process::id()));
        fs::create_dir_all(point.join("before")).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let before = inode(&point.join("before"));
        let paths: Paths = Arc::new(Mutex::new(Recent::new(GENERATION)));
        let mount = Mount {
            point: point.clone(),
            root: String::new(),
        };
        let ends = Watcher::start(mount, Arc::clone(&paths)).unwrap();
        let seen = |id| {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                match lock(&paths).get(&id) {
                    Some(path) => return path,
                    None if Instant::now() > deadline => panic!("{id} was not seen"),
                    None => {}
                }
                thread::yield_now();
            }
        };
        assert_eq!(&*seen(before), "/before");

        let deep = point.join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        let id = inode(&deep);
        assert_eq!(&*seen(id), "/a/b/c");
        fs::remove_dir_all(&point).unwrap();
        assert_eq!(&*seen(id), "/a/b/c");
        drop(ends);
    }

    #[test]
    fn without_a_hierarchy_nothing_has_a_place() {
        assert_eq!(Cgroups::none().place(1), None);
    }
}
