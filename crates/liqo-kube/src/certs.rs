//! Keys, signing requests and certificates: making them, reading them, serving them.

mod der;
mod name;
mod renewal;
mod request;
mod verify;

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::certificate::X509Certificate;

use name::Name;
pub use renewal::{due, renewal_after};
pub use request::SigningRequest;
pub use verify::{check_signature, sign};

/// What is wrong with a key, a request or a certificate.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CertError(String);

fn wrong(what: &str) -> impl Fn(&dyn fmt::Display) -> CertError + '_ {
    move |why| CertError(format!("{what}: {why}"))
}

/// Makes rustls use its crypto provider; call it once, before anything uses TLS.
pub fn install_crypto() {
    // An error only means that it has been installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A subject: who a certificate speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// CN.
    pub common_name: String,
    /// All O, in order.
    pub organizations: Vec<String>,
}

impl Subject {
    /// A subject with one organization.
    pub fn new(common_name: impl Into<String>, organization: impl Into<String>) -> Self {
        Self { common_name: common_name.into(), organizations: vec![organization.into()] }
    }

    fn name(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        for organization in &self.organizations {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        name.push(DnType::CommonName, self.common_name.as_str());
        name
    }
}

/// Kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519, what Liqo identities use.
    Ed25519,
    /// ECDSA on P-256, for certificates that TLS servers show.
    P256,
}

/// A new private key, PKCS#8 in PEM.
///
/// # Errors
/// When the system has no randomness.
pub fn new_key(kind: KeyKind) -> Result<String, CertError> {
    let algorithm = match kind {
        KeyKind::Ed25519 => &PKCS_ED25519,
        KeyKind::P256 => &PKCS_ECDSA_P256_SHA256,
    };
    Ok(KeyPair::generate_for(algorithm).map_err(|e| wrong("making a key")(&e))?.serialize_pem())
}

/// A signing request (PKCS#10 in PEM) for a key in PEM; names are DNS names or IP addresses.
///
/// # Errors
/// When the key or a name cannot be read.
pub fn signing_request(key: &str, subject: &Subject, names: &[String]) -> Result<String, CertError> {
    let key = KeyPair::from_pem(key).map_err(|e| wrong("reading the private key")(&e))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.name();
    params.subject_alt_names = alt_names(names)?;
    let request = params.serialize_request(&key).map_err(|e| wrong("making a signing request")(&e))?;
    request.pem().map_err(|e| wrong("writing a signing request")(&e))
}

/// When a certificate (PEM or DER) begins and ceases to be valid, and whom it speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whom it speaks of.
    pub subject: Subject,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// When there is no certificate, or its subject is ambiguous.
pub fn facts(pem: &[u8]) -> Result<Facts, CertError> {
    read_certificate(pem, facts_of)
}

/// Reads a certificate in DER.
///
/// # Errors
/// When it is none, or its subject can be read in two ways: two CN, a CN or O in a kind of string that not everybody
/// reads.
pub fn facts_der(der: &[u8]) -> Result<Facts, CertError> {
    parse(der, facts_of)
}

/// The key of the first certificate of a PEM text: `SubjectPublicKeyInfo` in DER.
///
/// # Errors
/// When there is none.
pub fn public_key(pem: &[u8]) -> Result<Vec<u8>, CertError> {
    read_certificate(pem, |certificate| Ok(certificate.public_key().raw.to_vec()))
}

/// The pin of a certificate (PEM): SHA-256 of its key (`SubjectPublicKeyInfo`), in base64url without padding.
///
/// # Errors
/// When there is no certificate.
pub fn pin(pem: &[u8]) -> Result<String, CertError> {
    read_certificate(pem, |certificate| Ok(pin_of(certificate)))
}

/// The pin of a certificate in DER.
///
/// # Errors
/// When it is none.
pub fn pin_der(der: &[u8]) -> Result<String, CertError> {
    parse(der, |certificate| Ok(pin_of(certificate)))
}

fn pin_of(certificate: &X509Certificate<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw);
    URL_SAFE_NO_PAD.encode(digest)
}

fn read_certificate<T>(
    pem: &[u8],
    what: impl FnOnce(&X509Certificate<'_>) -> Result<T, CertError>,
) -> Result<T, CertError> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|e| wrong("no PEM")(&e))?;
    parse(&der, what)
}

fn parse<T>(der: &[u8], what: impl FnOnce(&X509Certificate<'_>) -> Result<T, CertError>) -> Result<T, CertError> {
    match x509_parser::parse_x509_certificate(der).map_err(|e| wrong("no certificate")(&e))? {
        ([], certificate) => what(&certificate),
        _ => Err(CertError("something follows the certificate".to_owned())),
    }
}

fn facts_of(certificate: &X509Certificate<'_>) -> Result<Facts, CertError> {
    let time = |seconds| Timestamp::from_second(seconds).map_err(|e| wrong("a validity out of range")(&e));
    Ok(Facts {
        subject: Name::read(certificate.subject().as_raw())?.subject,
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
    })
}

/// A key and its certificate, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// Certificate chain.
    pub certificate: String,
    /// Private key.
    pub key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair { .. }")
    }
}

fn alt_names(names: &[String]) -> Result<Vec<SanType>, CertError> {
    let one = |name: &String| match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => name.as_str().try_into().map(SanType::DnsName).map_err(|e| wrong("a name that is no DNS name")(&e)),
    };
    names.iter().map(one).collect()
}

fn params(subject: &Subject, names: &[String], life: Duration) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.name();
    params.subject_alt_names = alt_names(names)?;
    let now = std::time::SystemTime::now();
    // Clocks of peers may be a little behind ours.
    params.not_before = (now - Duration::from_secs(300)).into();
    params.not_after = (now + life).into();
    Ok(params)
}

/// A certificate that vouches for itself, for servers whose clients do not verify.
///
/// # Errors
/// When a name is no DNS name or IP address.
pub fn self_signed(subject: &Subject, names: &[String], life: Duration) -> Result<Pair, CertError> {
    self_signed_by(&new_key(KeyKind::P256)?, subject, names, life)
}

/// As [`self_signed`], for a key that exists (PEM).
///
/// # Errors
/// When the key cannot be read, or a name is no DNS name or IP address.
pub fn self_signed_by(key: &str, subject: &Subject, names: &[String], life: Duration) -> Result<Pair, CertError> {
    let key = KeyPair::from_pem(key).map_err(|e| wrong("reading the private key")(&e))?;
    let mut params = params(subject, names, life)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(|e| wrong("signing a certificate")(&e))?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new certificate authority.
///
/// # Errors
/// When the system has no randomness.
pub fn authority(subject: &Subject, life: Duration) -> Result<Pair, CertError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| wrong("making a key")(&e))?;
    let mut params = params(subject, &[], life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(|e| wrong("signing a certificate")(&e))?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A server certificate issued by an authority.
///
/// # Errors
/// When the authority cannot be read or a name is no DNS name or IP address.
pub fn issue(by: &Pair, subject: &Subject, names: &[String], life: Duration) -> Result<Pair, CertError> {
    let authority_key = KeyPair::from_pem(&by.key).map_err(|e| wrong("reading the authority's key")(&e))?;
    let issuer = Issuer::from_ca_cert_pem(&by.certificate, authority_key)
        .map_err(|e| wrong("reading the authority's certificate")(&e))?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| wrong("making a key")(&e))?;
    let mut params = params(subject, names, life)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer).map_err(|e| wrong("signing a certificate")(&e))?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The certificate a server shows; it can be changed while the server runs.
#[derive(Debug, Default)]
pub struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl Shown {
    /// From now on this one is shown.
    ///
    /// # Errors
    /// When key or certificate cannot be read or do not belong together.
    pub fn show(&self, pair: &Pair) -> Result<(), CertError> {
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| wrong("reading the certificate")(&e))?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|e| wrong("reading the key")(&e))?;
        let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
            .map_err(|e| wrong("using the certificate")(&e))?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// TLS for a server that shows a changeable certificate and asks clients for none.
pub fn server_config(shown: Arc<Shown>) -> Arc<ServerConfig> {
    Arc::new(ServerConfig::builder().with_no_client_auth().with_cert_resolver(shown))
}

/// Authorities in PEM, as something to verify certificates with.
///
/// # Errors
/// A text, when one of them cannot be read or there is none.
pub fn roots(pem: &[u8]) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("reading an authority: {error}"))?;
        roots.add(certificate).map_err(|error| format!("using an authority: {error}"))?;
    }
    if roots.is_empty() { Err("there is no authority".to_owned()) } else { Ok(roots) }
}

/// TLS for a server that shows a changeable certificate and verifies the certificates of clients that
/// show one, against authorities in PEM. Whether a client must show one is for the caller to decide.
///
/// # Errors
/// When the authorities cannot be read.
pub fn server_config_with_clients(shown: Arc<Shown>, authorities: &str) -> Result<Arc<ServerConfig>, CertError> {
    let roots = roots(authorities.as_bytes()).map_err(|why| CertError(format!("client authorities: {why}")))?;
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong("using the client authorities")(&e))?;
    Ok(Arc::new(ServerConfig::builder().with_client_cert_verifier(verifier).with_cert_resolver(shown)))
}

#[cfg(test)]
mod tests {
    use rcgen::DnValue;

    use super::*;

    #[test]
    fn a_request_says_who_asks() {
        let key = new_key(KeyKind::Ed25519).unwrap();
        let subject = Subject::new("09897b82-7830-483b-b786-9cf90899f809", "liqo.io");
        let request = signing_request(&key, &subject, &[]).unwrap();
        assert_eq!(SigningRequest::read(&request).unwrap().subject(), &subject);
        assert!(SigningRequest::read("nonsense").is_err());
    }

    #[test]
    fn an_issued_certificate_is_due_after_two_thirds_of_its_life() {
        install_crypto();
        let authority = authority(&Subject::new("test", "liqo.io"), Duration::from_secs(9_000)).unwrap();
        let names = ["liqo-auth.liqo.svc".to_owned(), "10.0.0.1".to_owned()];
        let pair = issue(&authority, &Subject::new("a", "b"), &names, Duration::from_secs(900)).unwrap();
        let facts = facts(pair.certificate.as_bytes()).unwrap();
        assert_eq!(facts.subject, Subject::new("a", "b"));
        assert!(!due(&facts, Timestamp::now()));
        assert!(due(&facts, Timestamp::now() + Duration::from_secs(600)));
        Shown::default().show(&pair).unwrap();
    }

    #[test]
    fn a_certificate_that_can_be_read_in_two_ways_is_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let made = |attributes: Vec<(DnType, DnValue)>| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            attributes.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value));
            params.self_signed(&key).unwrap().der().to_vec()
        };
        let named = |text: &str| (DnType::CommonName, DnValue::Utf8String(text.to_owned()));
        let second = (DnType::CustomDnType(vec![2, 5, 4, 3]), DnValue::Utf8String("b".to_owned()));
        let teletex = (DnType::OrganizationName, DnValue::TeletexString("system:masters".try_into().unwrap()));
        let unit = (DnType::OrganizationalUnitName, DnValue::Utf8String("u".to_owned()));
        assert_eq!(facts_der(&made(vec![named("a"), unit])).unwrap().subject.common_name, "a");
        assert!(facts_der(&made(vec![named("a"), second])).is_err());
        assert!(facts_der(&made(vec![named("a"), teletex])).is_err());
        let whole = made(vec![named("a")]);
        assert!(facts_der(&[&whole[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_pin_stays_while_the_key_does() {
        let (key, subject) = (new_key(KeyKind::P256).unwrap(), Subject::new("liqo-auth", "liqo.io"));
        let made = |key: &str| self_signed_by(key, &subject, &[], Duration::from_secs(60)).unwrap().certificate;
        let pin = super::pin(made(&key).as_bytes()).unwrap();
        assert_eq!(pin.len(), 43);
        assert_eq!(super::pin(made(&key).as_bytes()).unwrap(), pin);
        assert_ne!(super::pin(made(&new_key(KeyKind::P256).unwrap()).as_bytes()).unwrap(), pin);
    }
}
