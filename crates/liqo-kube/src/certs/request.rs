//! Signing requests of others (PKCS#10), read once and strictly.
//!
//! Keeps true: the bytes that were checked are the bytes that are signed. A caller passes [`SigningRequest::pem`] on, which
//! encodes the very bytes that were parsed; surrounding text, further blocks and other encodings are dropped.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    CertError, Subject,
    der::{self, Der},
    name::Name,
    verify, wrong,
};

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const END: &str = "-----END CERTIFICATE REQUEST-----";
/// No request is longer, in bytes of DER.
const LONGEST: usize = 16 * 1024;

/// A signing request with a valid signature and a subject of exactly one O and one CN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    der: Vec<u8>,
    subject: Subject,
    public_key: Vec<u8>,
    is_bare: bool,
}

impl SigningRequest {
    /// Reads a PEM text of exactly one block.
    ///
    /// # Errors
    /// When the text is not exactly one signing request in DER, its subject is not exactly one O and one CN, or its signature
    /// is invalid.
    pub fn read(pem: &str) -> Result<Self, CertError> {
        let inner = pem.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let inner = inner.filter(|inner| inner.starts_with(['\n', '\r']));
        let inner =
            inner.ok_or_else(|| CertError("exactly one PEM block CERTIFICATE REQUEST is expected".to_owned()))?;
        let text: String = inner.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let bytes = STANDARD.decode(text).map_err(|error| wrong("no PEM")(&error))?;
        Self::read_der(bytes)
    }

    /// Reads a request in DER.
    ///
    /// # Errors
    /// As [`SigningRequest::read`].
    pub fn read_der(bytes: Vec<u8>) -> Result<Self, CertError> {
        if bytes.len() > LONGEST {
            return Err(CertError(format!("the signing request is longer than {LONGEST} bytes")));
        }
        let mut all = Der(&bytes);
        let mut request = Der(all.take(der::SEQUENCE, "the signing request")?.contents);
        all.end("the signing request")?;
        let signed = request.take(der::SEQUENCE, "the information of the signing request")?;
        let algorithm = request.take(der::SEQUENCE, "the signature algorithm")?.contents;
        let signature = bits(request.take(der::BIT_STRING, "the signature")?.contents, "the signature")?;
        request.end("the signature")?;

        let mut info = Der(signed.contents);
        if info.take(der::INTEGER, "the version")?.contents != [0] {
            return Err(CertError("the version of the signing request is not 1".to_owned()));
        }
        let name = Name::read(info.take(der::SEQUENCE, "the subject")?.whole)?;
        let key = info.take(der::SEQUENCE, "the public key")?;
        let attributes = info.take(der::CONTEXT_0, "the attributes")?;
        info.end("the attributes")?;
        if !name.is_plain() {
            let why = "the subject must consist of one organization (O) and one common name (CN), and of nothing else";
            return Err(CertError(why.to_owned()));
        }
        verify::signed(key.whole, Some(algorithm), signed.whole, signature)?;
        let (public_key, is_bare) = (key.whole.to_vec(), attributes.contents.is_empty());
        let subject = name.subject;
        Ok(Self { der: bytes, subject, public_key, is_bare })
    }

    /// Of whom it speaks.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether the request asks for a subject and a key only: no extensions, no other attributes.
    pub fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// The bytes that were read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The bytes that were read, as PEM.
    pub fn pem(&self) -> String {
        let text = STANDARD.encode(&self.der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
    }

    /// Whether a certificate (PEM) has the subject and the key of the request.
    ///
    /// # Errors
    /// What differs.
    pub fn check_answer(&self, certificate: &[u8]) -> Result<(), CertError> {
        super::read_certificate(certificate, |certificate| {
            let name = Name::read(certificate.subject().as_raw())?;
            if !name.is_plain() || name.subject != self.subject {
                let Subject { common_name, organizations } = name.subject;
                let why = format!("the certificate speaks of CN={common_name:?} O={organizations:?}");
                return Err(CertError(format!("{why}, the request of {:?}", self.subject)));
            }
            if certificate.public_key().raw != self.public_key {
                return Err(CertError("the certificate speaks of another key than the request".to_owned()));
            }
            Ok(())
        })
    }
}

/// The bytes of a bit string that is a whole number of bytes.
pub(super) fn bits<'a>(contents: &'a [u8], what: &str) -> Result<&'a [u8], CertError> {
    match contents.split_first() {
        Some((0, bytes)) => Ok(bytes),
        _ => Err(CertError(format!("{what} is not a whole number of bytes"))),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
