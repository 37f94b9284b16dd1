//! Parts of a line that are as in a line before: in a storm all but some numbers is. Their text is kept,
//! and copied, which is less work than making it anew.
//!
//! What a part says, and so what it depends on, is for its user to know.

use bytes::BytesMut;

/// Texts that are kept: a power of two. Storms have few kinds of lines.
const PLACES: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 5;

/// Texts by what they say.
#[derive(Debug)]
pub(super) struct Repeated<K> {
    kept: Box<[Option<Kept<K>>; PLACES]>,
}

#[derive(Debug)]
struct Kept<K> {
    says: K,
    text: Vec<u8>,
}

impl<K> Default for Repeated<K> {
    fn default() -> Self {
        Self {
            kept: Box::new([const { None }; PLACES]),
        }
    }
}

impl<K> Repeated<K> {
    /// Appends to `out` the text that is kept for `place`, any number, if `is` says that it says the same; else what
    /// `write` appends, which is kept from then on as saying what `write` returns. Where two texts want
    /// the same place the last one has it.
    pub(super) fn append(
        &mut self,
        out: &mut BytesMut,
        place: u32,
        is: impl FnOnce(&K) -> bool,
        write: impl FnOnce(&mut BytesMut) -> K,
    ) {
        // By the golden ratio: numbers that differ in a few bits seldom have the same place.
        let place = place.wrapping_mul(0x9e37_79b9) >> (u32::BITS - PLACE_BITS);
        let place = &mut self.kept[place as usize];
        if let Some(kept) = place
            && is(&kept.says)
        {
            out.extend_from_slice(&kept.text);
            return;
        }
        let start = out.len();
        let says = write(out);
        // The memory of the text before is used again.
        let mut text = place.take().map(|kept| kept.text).unwrap_or_default();
        text.clear();
        text.extend_from_slice(&out[start..]);
        *place = Some(Kept { says, text });
    }
}

#[cfg(test)]
impl<K> Repeated<K> {
    /// How many texts are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_text_that_is_kept_is_the_one_that_would_be_made(
            parts in vec((0_u32..70, 0_u8..4), 0..200),
        ) {
            let mut repeated = Repeated::default();
            let (mut out, mut plain) = (BytesMut::new(), String::new());
            for (place, says) in parts {
                let text = format!("{place}:{says} ");
                repeated.append(&mut out, place, |kept| *kept == (place, says), |out| {
                    out.extend_from_slice(text.as_bytes());
                    (place, says)
                });
                plain.push_str(&text);
            }
            prop_assert_eq!(&out[..], plain.as_bytes());
        }
    }

    #[test]
    fn what_repeats_is_made_once() {
        let mut repeated = Repeated::default();
        let mut out = BytesMut::new();
        let mut made = 0;
        for _ in 0..3 {
            repeated.append(
                &mut out,
                7,
                |says| *says == "a",
                |out| {
                    made += 1;
                    out.extend_from_slice(b"text");
                    "a"
                },
            );
        }
        assert_eq!((made, &out[..]), (1, &b"texttexttext"[..]));
    }
}
