//! Takes the terminal for a full screen, and leaves it as it was: at the end, after a panic in any
//! thread, and, since whoever runs the screen ends it then, after a signal.

use std::{
    cell::RefCell,
    env,
    io::{self, IsTerminal as _, Write},
    mem, panic,
    rc::Rc,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use nix::unistd::write;
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::terminal::{disable_raw_mode, enable_raw_mode},
};

/// To the alternate screen (xterm's 1049), clears it, hides the cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[2J\x1b[?25l";

/// Colours off, cursor on, back to the screen that was.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// Whether this process has the terminal.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What frames are drawn into: whoever has the screen writes it out, so that a slow terminal holds
/// nothing up.
#[derive(Clone, Debug, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal, taken. Dropping it leaves the terminal as it was.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Buffer>>,
    buffer: Buffer,
}

impl Screen {
    /// Whether standard output can be taken.
    ///
    /// # Errors
    ///
    /// When it is no terminal, or one without a screen.
    pub fn check() -> Result<()> {
        if !io::stdout().is_terminal() {
            bail!(
                "top needs a terminal, and standard output is none: to write to a file or a pipe, \
                 run `rstwatch trace`"
            );
        }
        let term = env::var_os("TERM").unwrap_or_default();
        if term.is_empty() || term == "dumb" {
            bail!(
                "top needs a terminal with a screen, and TERM says that this is none: set TERM, or \
                 run `rstwatch trace`"
            );
        }
        Ok(())
    }

    /// Takes the terminal on standard output.
    ///
    /// # Errors
    ///
    /// When it cannot be taken.
    pub fn take() -> Result<Self> {
        static HOOK: Once = Once::new();
        Self::check()?;
        HOOK.call_once(|| {
            let say = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                leave();
                say(info);
            }));
        });
        enable_raw_mode().context("cannot set the terminal to raw mode")?;
        TAKEN.store(true, Ordering::SeqCst);
        // From here on dropping it leaves the terminal.
        let buffer = Buffer::default();
        let backend = CrosstermBackend::new(buffer.clone());
        let screen = Terminal::new(backend).context("cannot learn the terminal's size");
        let terminal = screen.inspect_err(|_| leave())?;
        let screen = Self { terminal, buffer };
        say(ENTER);
        Ok(screen)
    }

    /// Draws a frame, the whole of it when the size has changed. Returns what is to be written.
    ///
    /// # Errors
    ///
    /// When the terminal's size cannot be learnt.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<Bytes> {
        self.terminal.draw(draw).context("cannot draw")?;
        Ok(mem::take(&mut *self.buffer.0.borrow_mut()).into())
    }
}

impl Screen {
    /// Gives the terminal up. Returns what is left to be written, behind the frames that may still
    /// wait for it.
    pub fn give_up(self) -> Bytes {
        if TAKEN.swap(false, Ordering::SeqCst) {
            // It was set, so it can be set back; if not, nobody can help it.
            let _ = disable_raw_mode();
        }
        Bytes::from_static(LEAVE)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Leaves the terminal as it was, if it was taken. Errors are of no use any more.
fn leave() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        say(LEAVE);
        let _ = disable_raw_mode();
    }
}

/// Writes to the terminal past the buffer of standard output, whose lock another thread may hold.
fn say(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(io::stdout(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
