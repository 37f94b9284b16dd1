//! Lines that are kept: in a storm a line is like one before but for some numbers. What they have in common is copied,
//! which is less work than making it anew.
//!
//! What a line says, and what makes two of one kind, is for `line`.

use arrayvec::ArrayVec;

use super::{
    line::{self, Kind, MOST_OWN, Parts, Values},
    writer::Writer,
};
use crate::{cause::Verdict, event::Event};

/// Lines that are kept: a power of two. Storms have few kinds of them.
const PLACES: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 5;

/// Lines by their kind.
#[derive(Debug)]
pub struct Kept {
    places: Box<[Option<Line>]>,
    /// How many have been kept.
    made: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| None).collect(),
            made: 0,
        }
    }
}

/// Which line it was that is kept; that of none at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    place: usize,
    /// Counted from 1.
    number: u64,
}

/// A line behind its time.
#[derive(Debug)]
struct Line {
    number: u64,
    kind: Kind,
    values: Values,
    text: Vec<u8>,
    /// Where the parts are that are its own.
    own: ArrayVec<Span, MOST_OWN>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

impl Kept {
    /// Appends the line of `event` behind its time. Returns its mark.
    pub fn append(&mut self, w: &mut Writer, event: &Event, verdict: &Verdict) -> Mark {
        // By the golden ratio: numbers that differ in a few bits seldom have the same place.
        let mark = Kind::mark(event, verdict);
        let place = (mark.wrapping_mul(0x9e37_79b9) >> (u32::BITS - PLACE_BITS)) as usize;
        let kept = &mut self.places[place];
        let number = match kept {
            Some(line) if line.kind.is_of(event, verdict) => {
                line.again(w, event, verdict);
                line.number
            }
            _ => {
                self.made += 1;
                // The memory of the text before is used again.
                let text = kept.take().map(|line| line.text).unwrap_or_default();
                *kept = Some(Line::make(w, event, verdict, text, self.made));
                self.made
            }
        };
        Mark { place, number }
    }

    /// The same for an event of the kind of that whose line has this mark, which becomes this one's.
    pub fn append_like(
        &mut self,
        w: &mut Writer,
        event: &Event,
        verdict: &Verdict,
        mark: &mut Mark,
    ) {
        match &self.places[mark.place] {
            Some(line) if line.number == mark.number => line.again(w, event, verdict),
            _ => *mark = self.append(w, event, verdict),
        }
    }
}

impl Line {
    /// Appends a line, and keeps it with its text in the memory of `text`.
    ///
    /// Apart from what is done for most lines, which needs little of the stack.
    #[cold]
    #[inline(never)]
    fn make(
        w: &mut Writer,
        event: &Event,
        verdict: &Verdict,
        mut text: Vec<u8>,
        number: u64,
    ) -> Self {
        let start = w.bytes().len();
        let mut making = Making {
            w,
            start,
            own: ArrayVec::new(),
        };
        line::parts(event, verdict, &mut making);
        let Making { w, own, .. } = making;
        text.clear();
        text.extend_from_slice(&w.bytes()[start..]);
        Self {
            number,
            kind: Kind::of(event, verdict),
            values: Values::of(event),
            text,
            own,
        }
    }

    /// Appends another line of its kind.
    fn again(&self, w: &mut Writer, event: &Event, verdict: &Verdict) {
        let mut again = Again {
            w,
            line: self,
            next: 0,
            copied: 0,
        };
        line::parts(event, verdict, &mut again);
        let Again { w, copied, .. } = again;
        w.append(&self.text[copied..]);
    }
}

/// A line that is made anew, with where it begins, and what of it is its own.
struct Making<'a> {
    w: &'a mut Writer,
    start: usize,
    own: ArrayVec<Span, MOST_OWN>,
}

impl Parts for Making<'_> {
    fn common(&mut self, write: impl FnOnce(&mut Writer)) {
        write(self.w);
    }

    fn own(&mut self, _: impl FnOnce(&Values) -> bool, write: impl FnOnce(&mut Writer)) {
        let start = self.w.bytes().len() - self.start;
        write(self.w);
        let end = self.w.bytes().len() - self.start;
        self.own.push(Span { start, end });
    }
}

/// A line that is another one of its kind, and how much of that has been copied or replaced.
struct Again<'a> {
    w: &'a mut Writer,
    line: &'a Line,
    next: usize,
    copied: usize,
}

impl Parts for Again<'_> {
    #[inline]
    fn common(&mut self, _: impl FnOnce(&mut Writer)) {}

    #[inline]
    fn own(&mut self, is_same: impl FnOnce(&Values) -> bool, write: impl FnOnce(&mut Writer)) {
        let Span { start, end } = self.line.own[self.next];
        self.next += 1;
        if !is_same(&self.line.values) {
            self.w.append(&self.line.text[self.copied..start]);
            write(self.w);
            self.copied = end;
        }
    }
}

#[cfg(test)]
impl Kept {
    /// How many lines are kept.
    pub fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }
}
