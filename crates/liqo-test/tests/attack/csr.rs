//! Signing requests made by hand, octet by octet: what no honest program makes, and what readers read differently.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use liqo_test::run::{command, output, write};

/// Kinds of strings: their tags in DER.
pub(crate) const UTF8: u8 = 0x0c;
pub(crate) const TELETEX: u8 = 0x14;
pub(crate) const BMP: u8 = 0x1e;
/// Attributes of a name: the last octet of 2.5.4.n.
const CN: u8 = 3;
const O: u8 = 10;

/// One attribute of a name.
#[derive(Clone)]
pub(crate) struct Attribute(Vec<u8>);

pub(crate) fn cn(tag: u8, value: &str) -> Attribute {
    Attribute::new(CN, tag, value)
}

pub(crate) fn o(tag: u8, value: &str) -> Attribute {
    Attribute::new(O, tag, value)
}

impl Attribute {
    fn new(kind: u8, tag: u8, value: &str) -> Self {
        let octets = if tag == BMP {
            value.encode_utf16().flat_map(u16::to_be_bytes).collect()
        } else {
            value.as_bytes().to_vec()
        };
        Self(der(0x30, &[der(0x06, &[vec![0x55, 4, kind]]), der(tag, &[octets])]))
    }
}

/// Tag, length and content.
fn der(tag: u8, content: &[Vec<u8>]) -> Vec<u8> {
    let content = content.concat();
    let length = match content.len() {
        short @ 0..0x80 => vec![short.to_be_bytes()[7]],
        long @ 0x80..0x100 => vec![0x81, long.to_be_bytes()[7]],
        longer => [&[0x82], &longer.to_be_bytes()[6..]].concat(),
    };
    [vec![tag], length, content].concat()
}

/// A key of ours, and a place for files.
pub(crate) struct Key {
    directory: PathBuf,
}

impl Key {
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let this = Self { directory: directory.to_owned() };
        output(command("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(this.file("key.pem")))?;
        Ok(this)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The private key in PEM.
    pub(crate) fn pem(&self) -> Result<String> {
        std::fs::read_to_string(self.file("key.pem")).context("the key was just made")
    }

    /// A signing request in PEM; its subject consists of these RDNs, each a set of attributes, and it asks for these
    /// alternative names.
    pub(crate) fn request(&self, subject: &[&[Attribute]], alternative: &[&str]) -> Result<String> {
        let public = self.file("public.der");
        let mut openssl = command("openssl");
        output(
            openssl
                .arg("pkey")
                .arg("-in")
                .arg(self.file("key.pem"))
                .args(["-pubout", "-outform", "DER", "-out"])
                .arg(&public),
        )?;
        let names = subject.iter().map(|set| der(0x31, &set.iter().map(|one| one.0.clone()).collect::<Vec<_>>()));
        let subject = der(0x30, &names.collect::<Vec<_>>());
        let info = der(0x30, &[der(0x02, &[vec![0]]), subject, std::fs::read(public)?, attributes(alternative)]);
        let (unsigned, signature) = (self.file("info.der"), self.file("signature"));
        write(&unsigned, &info)?;
        let mut sign = command("openssl");
        sign.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(self.file("key.pem"));
        output(sign.arg("-in").arg(&unsigned).arg("-out").arg(&signature))?;
        let algorithm = der(0x30, &[der(0x06, &[vec![0x2b, 0x65, 0x70]])]);
        let bits = der(0x03, &[vec![0], std::fs::read(signature)?]);
        Ok(pem(&der(0x30, &[info, algorithm, bits])))
    }
}

/// Whether a certificate, in base64 as the door answers, is still good after this time.
pub(crate) fn outlives(certificate: &str, directory: &Path, time: Duration) -> Result<bool> {
    let file = directory.join("given.pem");
    write(&file, BASE64_STANDARD.decode(certificate).context("a certificate is in base64")?)?;
    let mut openssl = command("openssl");
    openssl.args(["x509", "-noout", "-checkend", &time.as_secs().to_string(), "-in"]).arg(file);
    Ok(openssl.status().context("openssl does not run")?.success())
}

/// The attributes of a request: none, or one that asks for alternative names.
fn attributes(alternative: &[&str]) -> Vec<u8> {
    if alternative.is_empty() {
        return der(0xa0, &[]);
    }
    let names: Vec<_> = alternative.iter().map(|name| der(0x82, &[name.as_bytes().to_vec()])).collect();
    let extension = der(0x30, &[der(0x06, &[vec![0x55, 0x1d, 0x11]]), der(0x04, &[der(0x30, &names)])]);
    let extension_request = vec![0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
    let set = der(0x31, &[der(0x30, &[extension])]);
    der(0xa0, &[der(0x30, &[der(0x06, &[extension_request]), set])])
}

fn pem(request: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(request);
    let mut lines = String::new();
    for line in text.as_bytes().chunks(64) {
        lines.push_str(&String::from_utf8_lossy(line));
        lines.push('\n');
    }
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n")
}
