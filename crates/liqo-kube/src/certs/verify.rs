//! Signatures over short messages by keys of requests and certificates.

use rustls::{
    SignatureScheme,
    crypto::ring::{default_provider, sign::any_supported_type},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use super::{
    CertError,
    der::{self, Der},
    request::bits,
    wrong,
};

/// Checks a signature by a key (`SubjectPublicKeyInfo` in DER), by one algorithm or by any that suits the key.
pub(super) fn signed(key: &[u8], algorithm: Option<&[u8]>, message: &[u8], signature: &[u8]) -> Result<(), CertError> {
    let mut info = Der(Der(key).take(der::SEQUENCE, "the public key")?.contents);
    let kind = info.take(der::SEQUENCE, "the kind of the public key")?.contents;
    let bytes = bits(info.take(der::BIT_STRING, "the public key")?.contents, "the public key")?;
    info.end("the public key")?;
    let known = default_provider().signature_verification_algorithms.all;
    let fitting = known.iter().filter(|one| {
        one.public_key_alg_id().as_ref() == kind
            && algorithm.is_none_or(|wanted| one.signature_alg_id().as_ref() == wanted)
    });
    let mut tried = fitting.map(|one| one.verify_signature(bytes, message, signature)).peekable();
    if tried.peek().is_none() {
        return Err(CertError("the kind of key or signature is not supported".to_owned()));
    }
    if tried.any(|outcome| outcome.is_ok()) {
        return Ok(());
    }
    Err(CertError("the signature is not by the key".to_owned()))
}

/// A signature over `message` by a private key in PEM.
///
/// # Errors
/// When the key cannot be used.
pub fn sign(key: &str, message: &[u8]) -> Result<Vec<u8>, CertError> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| wrong("reading the private key")(&e))?;
    let key = any_supported_type(&key).map_err(|e| wrong("using the private key")(&e))?;
    let schemes = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
    let signer = key.choose_scheme(&schemes).ok_or_else(|| CertError("the key cannot sign".to_owned()))?;
    signer.sign(message).map_err(|e| wrong("signing")(&e))
}

/// Checks that `signature` over `message` is by the key of a certificate (PEM).
///
/// # Errors
/// When it is not, or the certificate cannot be read.
pub fn check_signature(certificate: &[u8], message: &[u8], signature: &[u8]) -> Result<(), CertError> {
    signed(&super::public_key(certificate)?, None, message, signature)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::certs::{KeyKind, Subject, new_key, self_signed};

    #[test]
    fn a_signature_is_by_one_key_over_one_message() {
        let pair = self_signed(&Subject::new("a", "b"), &[], Duration::from_secs(60)).unwrap();
        let certificate = pair.certificate.as_bytes();
        let signature = sign(&pair.key, b"message").unwrap();
        check_signature(certificate, b"message", &signature).unwrap();
        assert!(check_signature(certificate, b"another", &signature).is_err());
        let other = sign(&new_key(KeyKind::P256).unwrap(), b"message").unwrap();
        assert!(check_signature(certificate, b"message", &other).is_err());
        assert!(check_signature(certificate, b"message", b"").is_err());
        assert_eq!(sign(&new_key(KeyKind::Ed25519).unwrap(), b"message").unwrap().len(), 64);
    }

    /// No other bytes are a signature; neither a certificate nor a signature of somebody else ends the process.
    #[test]
    fn fuzz_signatures() {
        let pair = self_signed(&Subject::new("a", "b"), &[], Duration::from_secs(60)).unwrap();
        let certificate = pair.certificate.as_bytes();
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "signature", |bytes| {
            assert!(check_signature(certificate, b"message", bytes).is_err(), "a key made just now signed nothing");
            let _ = check_signature(bytes, b"message", bytes);
        });
    }
}
