use proptest::{prelude::*, sample::Index};
use ring::signature::{Ed25519KeyPair, KeyPair};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::*;
use crate::certs::{KeyKind, authority, issue, new_key, signing_request};

const ID: &str = "09897b82-7830-483b-b786-9cf90899f809";
const CN: &[u8] = &[0x55, 4, 3];
const O: &[u8] = &[0x55, 4, 10];
const OU: &[u8] = &[0x55, 4, 11];
const UTF8: u8 = der::UTF8_STRING;
const PRINTABLE: u8 = der::PRINTABLE_STRING;
const TELETEX: u8 = 0x14;
const IA5: u8 = 0x16;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;
const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];

/// Written by Go's `x509.CreateCertificateRequest`, as Liqo 0.8.3 does.
const BY_GO: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHAMHQCAQAwQTEQMA4GA1UEChMHbGlxby5pbzEtMCsGA1UEAxMkMDk4OTdiODIt
NzgzMC00ODNiLWI3ODYtOWNmOTA4OTlmODA5MCowBQYDK2VwAyEA/SE+Ul0m5ff5
u1mksepeyUBwpphe3MNEDL1GgXoyn02gADAFBgMrZXADQQDEN/VVj+7OLqSbgnpc
kCVr2GdYPPS89R9os+CPKWiQ8xjGc77rozy1ZAHf0fpP1taovMB8z8dc2reaVoeD
oycE
-----END CERTIFICATE REQUEST-----
";
/// Written by `openssl req -new`.
const BY_OPENSSL: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHAMHQCAQAwQTEQMA4GA1UECgwHbGlxby5pbzEtMCsGA1UEAwwkMDk4OTdiODIt
NzgzMC00ODNiLWI3ODYtOWNmOTA4OTlmODA5MCowBQYDK2VwAyEAwecAPV5YQngp
erEsvRVGcaQJa8iLnrxi3GSCt6ztExCgADAFBgMrZXADQQBzJYOdq9ySiLHyj5mY
/tneY4eIY4BijealJsqjjjdrHlA5QW9o/pH+bFVAyTDy0oJDl75Bl9e/q1XULJys
rTkP
-----END CERTIFICATE REQUEST-----
";

fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [.., high, low] = contents.len().to_be_bytes();
    let length = match (high, low) {
        (0, 0..0x80) => vec![low],
        (0, _) => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, contents].concat()
}

fn attribute(kind: &[u8], tag: u8, text: &str) -> Vec<u8> {
    let bytes: Vec<u8> = match tag {
        BMP => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        UNIVERSAL => text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
        _ => text.into(),
    };
    tlv(der::SEQUENCE, &[tlv(der::OID, kind), tlv(tag, &bytes)].concat())
}

/// A part of a name with one attribute.
fn part(kind: &[u8], tag: u8, text: &str) -> Vec<u8> {
    tlv(der::SET, &attribute(kind, tag, text))
}

fn good() -> Vec<u8> {
    [part(O, UTF8, "liqo.io"), part(CN, UTF8, ID)].concat()
}

/// A signed request with this name, these attributes and this version.
fn made(name: &[u8], attributes: &[u8], version: u8) -> Vec<u8> {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let bits = |bytes: &[u8]| tlv(der::BIT_STRING, &[&[0], bytes].concat());
    let public = tlv(der::SEQUENCE, &[ED25519.to_vec(), bits(key.public_key().as_ref())].concat());
    let parts = [tlv(der::INTEGER, &[version]), tlv(der::SEQUENCE, name), public, attributes.to_vec()];
    let info = tlv(der::SEQUENCE, &parts.concat());
    let signature = bits(key.sign(&info).as_ref());
    tlv(der::SEQUENCE, &[info, ED25519.to_vec(), signature].concat())
}

fn named(name: &[u8]) -> Result<SigningRequest, CertError> {
    SigningRequest::read_der(made(name, &[der::CONTEXT_0, 0], 0))
}

#[test]
fn requests_of_go_and_openssl_are_read() {
    for pem in [BY_GO, BY_OPENSSL] {
        let request = SigningRequest::read(pem).unwrap();
        assert_eq!(request.subject(), &Subject::new(ID, "liqo.io"));
        assert!(request.is_bare());
        assert_eq!(request.pem(), pem);
    }
    for name in [good(), [part(CN, PRINTABLE, ID), part(O, PRINTABLE, "liqo.io")].concat()] {
        assert_eq!(named(&name).unwrap().subject(), &Subject::new(ID, "liqo.io"));
    }
}

#[test]
fn a_subject_that_others_read_differently_is_refused() {
    let admin = "system:kube-controller-manager";
    let both = tlv(der::SET, &[attribute(O, UTF8, "liqo.io"), attribute(CN, UTF8, ID)].concat());
    for (what, name) in [
        ("two CNs", [good(), part(CN, UTF8, admin)].concat()),
        ("two CNs, O last", [part(CN, UTF8, ID), part(CN, UTF8, admin), part(O, UTF8, "liqo.io")].concat()),
        ("two CNs, no O", [part(CN, UTF8, ID), part(CN, UTF8, admin)].concat()),
        ("an unreadable last CN", [good(), part(CN, TELETEX, admin)].concat()),
        ("an unreadable last CN", [good(), part(CN, BMP, admin)].concat()),
        ("an unreadable CN", [part(O, UTF8, "liqo.io"), part(CN, TELETEX, ID)].concat()),
        ("two Os", [good(), part(O, UTF8, "kubeadm:cluster-admins")].concat()),
        ("a Teletex O", [good(), part(O, TELETEX, "kubeadm:cluster-admins")].concat()),
        ("a BMP O", [good(), part(O, BMP, "kubeadm:cluster-admins")].concat()),
        ("a Universal O", [good(), part(O, UNIVERSAL, "kubeadm:cluster-admins")].concat()),
        ("an IA5 O", [part(O, IA5, "liqo.io"), part(CN, UTF8, ID)].concat()),
        ("a Teletex O only", [part(O, TELETEX, "liqo.io"), part(CN, UTF8, ID)].concat()),
        ("two attributes in one part", both.clone()),
        ("two attributes in one part, and another", [both, part(OU, UTF8, "x")].concat()),
        ("another attribute", [good(), part(OU, UTF8, "x")].concat()),
        ("an empty part", [good(), tlv(der::SET, &[])].concat()),
        ("no CN", part(O, UTF8, "liqo.io")),
        ("no O", part(CN, UTF8, ID)),
        ("an empty CN", [part(O, UTF8, "liqo.io"), part(CN, UTF8, "")].concat()),
        ("nothing", Vec::new()),
        ("a character PrintableString has not", [part(O, PRINTABLE, "liqo_io"), part(CN, UTF8, ID)].concat()),
    ] {
        assert!(named(&name).is_err(), "{what}");
    }
    let invalid = tlv(der::SEQUENCE, &[tlv(der::OID, CN), tlv(UTF8, &[0xff])].concat());
    assert!(named(&[part(O, UTF8, "liqo.io"), tlv(der::SET, &invalid)].concat()).is_err(), "no UTF-8");
}

#[test]
fn only_der_without_anything_around_it_is_read() {
    let right = made(&good(), &[der::CONTEXT_0, 0], 0);
    assert!(SigningRequest::read_der(right.clone()).is_ok());
    // The same bytes, the length written with a byte more than it needs, or left open.
    assert_eq!(right[1], 0x81);
    let longer = [&[0x30, 0x82, 0][..], &right[2..]].concat();
    let open = [&[0x30, 0x80][..], &right[3..], &[0, 0]].concat();
    let mut flipped = right.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (what, bytes) in [
        ("something behind", [&right[..], &[0]].concat()),
        ("a second request", [&right[..], &right].concat()),
        ("cut", right[..right.len() - 1].to_vec()),
        ("a wrong signature", flipped),
        ("a length that is not the shortest", longer),
        ("an open length", open),
        ("version 2", made(&good(), &[der::CONTEXT_0, 0], 1)),
        ("no attributes", made(&good(), &[], 0)),
        ("two sets of attributes", made(&good(), &[der::CONTEXT_0, 0, der::CONTEXT_0, 0], 0)),
        ("too long", vec![0x30; LONGEST + 1]),
        ("nothing", Vec::new()),
    ] {
        assert!(SigningRequest::read_der(bytes).is_err(), "{what}");
    }
    let asks = tlv(der::CONTEXT_0, &tlv(der::SEQUENCE, &[6, 1, 1]));
    assert!(!SigningRequest::read_der(made(&good(), &asks, 0)).unwrap().is_bare());
}

#[test]
fn only_one_block_of_pem_is_read() {
    let block = BY_OPENSSL.trim_end();
    assert!(SigningRequest::read(&format!("\n{}\n", block.replace('\n', "\r\n"))).is_ok());
    let second = SigningRequest::read_der(made(&good(), &[der::CONTEXT_0, 0], 0)).unwrap().pem();
    for white in ["\u{c}", "\u{b}", "\t", " ", "\u{85}", "\u{a0}", ""] {
        let first = block.replacen("REQUEST-----\n", &format!("REQUEST-----{white}"), 1);
        assert!(SigningRequest::read(&first).is_err(), "{white:?}");
        assert!(SigningRequest::read(&format!("{first}\n{second}")).is_err(), "{white:?} and a second block");
    }
    for text in [
        format!("{block}\n{second}"),
        format!("text\n{block}"),
        format!("{block}\ntext"),
        block.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        block.replacen('\n', "\nProc-Type: 4\n\n", 1),
        block.replacen("MIHAMHQ", "MIHAMHQ=", 1),
    ] {
        assert!(SigningRequest::read(&text).is_err(), "{text}");
    }
}

#[test]
fn an_answer_must_be_what_was_asked_for() {
    crate::certs::install_crypto();
    let life = std::time::Duration::from_secs(600);
    let by = authority(&Subject::new("authority", "test"), life).unwrap();
    let asked = |pair: &crate::certs::Pair, subject: &Subject| {
        SigningRequest::read(&signing_request(&pair.key, subject, &[]).unwrap()).unwrap()
    };
    let subject = Subject::new(ID, "liqo.io");
    let pair = issue(&by, &subject, &[], life).unwrap();
    let answer = pair.certificate.as_bytes();
    assert_eq!(asked(&pair, &subject).check_answer(answer).map_err(|error| error.to_string()), Ok(()));
    let other = asked(&pair, &Subject::new("somebody", "liqo.io")).check_answer(answer).unwrap_err();
    assert!(other.to_string().contains(ID), "{other}");
    let another = issue(&by, &subject, &[], life).unwrap();
    assert!(asked(&another, &subject).check_answer(answer).unwrap_err().to_string().contains("another key"));
    let mut two = subject.clone();
    two.organizations.push("kubeadm:cluster-admins".to_owned());
    let wider = issue(&by, &two, &[], life).unwrap();
    assert!(asked(&wider, &subject).check_answer(wider.certificate.as_bytes()).is_err());
    assert!(asked(&pair, &subject).check_answer(b"nonsense").is_err());
}

#[test]
fn requests_of_kubelets_ask_for_names() {
    let key = new_key(KeyKind::P256).unwrap();
    let names = ["10.0.0.1".to_owned(), "liqo-rome".to_owned()];
    let subject = Subject::new("system:node:liqo-rome", "system:nodes");
    let request = SigningRequest::read(&signing_request(&key, &subject, &names).unwrap()).unwrap();
    assert_eq!((request.subject(), request.is_bare()), (&subject, false));
}

/// All CN and all O that another parser finds.
fn naive(bytes: &[u8]) -> Option<(Vec<String>, Vec<String>)> {
    let (_, request) = X509CertificationRequest::from_der(bytes).ok()?;
    let name = &request.certification_request_info.subject;
    let text = |one: &x509_parser::x509::AttributeTypeAndValue<'_>| one.as_str().ok().map(str::to_owned);
    Some((
        name.iter_common_name().map(text).collect::<Option<_>>()?,
        name.iter_organization().map(text).collect::<Option<_>>()?,
    ))
}

/// What is read says the same to another reader, and is passed on as the bytes that were read.
#[test]
fn fuzz_signing_requests() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "signing_request", |bytes| {
        let Ok(request) = SigningRequest::read(&String::from_utf8_lossy(bytes)) else { return };
        let Subject { common_name, organizations } = request.subject().clone();
        assert_eq!(naive(request.der()), Some((vec![common_name], organizations)));
        assert_eq!(SigningRequest::read(&request.pem()).unwrap(), request);
    });
}

#[test]
fn fuzz_certificates() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "certificate", |bytes| {
        let Ok(facts) = crate::certs::facts_der(bytes) else { return };
        let (_, certificate) = x509_parser::parse_x509_certificate(bytes).unwrap();
        let names: Vec<_> = certificate.subject().iter_common_name().map(|one| one.as_str().unwrap()).collect();
        assert!(names.is_empty() && facts.subject.common_name.is_empty() || names == [facts.subject.common_name]);
        assert!(crate::certs::pin_der(bytes).is_ok());
    });
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_request(bytes in proptest::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
        prop_assert!(SigningRequest::read_der(bytes.clone()).is_err());
        prop_assert!(SigningRequest::read(&text).is_err());
        let _ = crate::certs::facts_der(&bytes);
        let _ = crate::certs::facts(&bytes);
    }

    /// A request changed after signing is refused; a request changed before signing has the same meaning for both parsers.
    #[test]
    fn a_changed_request_says_the_same_to_everybody(
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        is_signed_before in any::<bool>(),
    ) {
        let change = |bytes: &mut Vec<u8>| changes.iter().for_each(|(at, byte)| {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        });
        let mut name = good();
        if !is_signed_before {
            change(&mut name);
        }
        let mut bytes = made(&name, &[der::CONTEXT_0, 0], 0);
        let original = bytes.clone();
        if is_signed_before {
            change(&mut bytes);
        }
        if let Ok(request) = SigningRequest::read_der(bytes.clone()) {
            let Subject { common_name, organizations } = request.subject().clone();
            prop_assert_eq!(naive(&bytes), Some((vec![common_name], organizations)));
            prop_assert!(!is_signed_before || bytes == original);
        }
    }
}
