//! A reader of DER (X.690): every value has exactly one encoding, and any other encoding is an error.

use super::CertError;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// `[0]`, constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;

/// The bytes not yet read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

/// One value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) contents: &'a [u8],
    /// Tag, length and contents.
    pub(super) whole: &'a [u8],
}

impl<'a> Der<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next value, of any tag.
    pub(super) fn any(&mut self, what: &str) -> Result<Element<'a>, CertError> {
        let element = element(self.0).ok_or_else(|| CertError(format!("{what} is not DER")))?;
        self.0 = self.0.get(element.whole.len()..).unwrap_or_default();
        Ok(element)
    }

    /// The next value, which must have the tag `tag`.
    pub(super) fn take(&mut self, tag: u8, what: &str) -> Result<Element<'a>, CertError> {
        let element = self.any(what)?;
        if element.tag == tag {
            return Ok(element);
        }
        Err(CertError(format!("{what} has the tag {:#04x}, not {tag:#04x}", element.tag)))
    }

    /// Nothing more may follow.
    pub(super) fn end(self, what: &str) -> Result<(), CertError> {
        if self.is_empty() { Ok(()) } else { Err(CertError(format!("something follows {what}"))) }
    }
}

/// The first value of `bytes`: low tag numbers, definite lengths in their shortest form.
fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            let is_shortest = digits.first() != Some(&0) && length >= 0x80;
            (is_shortest.then_some(length)?, rest)
        }
        _ => return None,
    };
    let contents = rest.get(..length)?;
    let whole = bytes.get(..bytes.len() - rest.len() + length)?;
    Some(Element { tag, contents, whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_encoding_for_each_value() {
        for (bytes, contents) in [
            (&[2, 1, 5][..], Some(&[5][..])),
            (&[2, 1, 5, 9], Some(&[5])),
            (&[2, 0], Some(&[])),
            (&[], None),
            (&[2], None),
            (&[2, 2, 5], None),
            // Longer than needed, indefinite, a tag in many bytes.
            (&[2, 0x81, 1, 5], None),
            (&[2, 0x82, 0, 0x80], None),
            (&[0x30, 0x80, 0, 0], None),
            (&[0x1f, 0x20, 1, 5], None),
            (&[2, 0x84, 0, 0, 0, 1, 5], None),
        ] {
            assert_eq!(element(bytes).map(|one| one.contents), contents, "{bytes:?}");
        }
        let long = [&[4, 0x81, 0x80][..], &[7; 0x80]].concat();
        assert_eq!(element(&long).map(|one| one.whole.len()), Some(0x83));
    }
}
