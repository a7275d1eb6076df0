//! Distinguished names, read as Kubernetes reads them or not at all.
//!
//! Kubernetes takes the last common name and decodes kinds of strings that others leave out; a name that could be
//! read in two ways is an error here.

use super::{
    CertError, Subject,
    der::{self, Der, Element},
};

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];

/// A name, and the number of attributes in each of its relative distinguished names (RDN).
#[derive(Debug)]
pub(super) struct Name {
    pub(super) subject: Subject,
    parts: Vec<usize>,
    others: usize,
}

impl Name {
    /// Reads a `Name` in DER: at most one CN; CN and O are UTF8String or PrintableString.
    pub(super) fn read(whole: &[u8]) -> Result<Self, CertError> {
        let mut all = Der(whole);
        let mut parts = Der(all.take(der::SEQUENCE, "a subject")?.contents);
        all.end("a subject")?;
        let mut name = Self { subject: Subject::default(), parts: Vec::new(), others: 0 };
        let mut common_names = 0;
        while !parts.is_empty() {
            let mut attributes = Der(parts.take(der::SET, "a part of a subject")?.contents);
            let mut count = 0;
            while !attributes.is_empty() {
                let mut attribute = Der(attributes.take(der::SEQUENCE, "an attribute of a subject")?.contents);
                let kind = attribute.take(der::OID, "the kind of an attribute")?.contents;
                let value = attribute.any("the value of an attribute")?;
                attribute.end("the value of an attribute")?;
                match kind {
                    COMMON_NAME => {
                        common_names += 1;
                        name.subject.common_name = text("CN", value)?;
                    }
                    ORGANIZATION => name.subject.organizations.push(text("O", value)?),
                    _ => name.others += 1,
                }
                count += 1;
            }
            name.parts.push(count);
        }
        if common_names > 1 {
            return Err(CertError(format!("the subject has {common_names} common names (CN), not one")));
        }
        Ok(name)
    }

    /// Whether the name consists of exactly one O and one CN, each in an RDN of its own.
    pub(super) fn is_plain(&self) -> bool {
        let Subject { common_name, organizations } = &self.subject;
        self.parts == [1, 1] && self.others == 0 && organizations.len() == 1 && !common_name.is_empty()
    }
}

fn text(kind: &str, value: Element<'_>) -> Result<String, CertError> {
    let printable = |byte: &u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(byte);
    let is_right = match value.tag {
        der::UTF8_STRING => true,
        der::PRINTABLE_STRING => value.contents.iter().all(printable),
        _ => false,
    };
    let text = std::str::from_utf8(value.contents).ok().filter(|_| is_right);
    text.map(str::to_owned).ok_or_else(|| {
        CertError(format!("{kind} of the subject is a string of tag {:#04x} that cannot be read", value.tag))
    })
}
