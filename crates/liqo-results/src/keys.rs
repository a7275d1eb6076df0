//! Keys of the embedded store: each opens one prefix, for a time, and needs no memory in the store.
//!
//! Keeps true: the identifier of a key says what the key opens, and the secret of an identifier cannot be made without the
//! master key. So the controller issues keys and the store judges them without talking to each other, and a key ends by
//! itself. A key of a mover lives no longer than [`LIFE`], and a store can be told to take no more writes with such keys below a prefix.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

use crate::path::{BadPath, check_key};

/// First part of each identifier: a later form of identifiers has another one.
const FORM: &str = "l1";
/// Between the parts of an identifier, and instead of the slashes of the prefix: no prefix contains this character, and no
/// URL needs to escape it.
const BETWEEN: char = '~';
/// Longest identifier, in bytes, as services that read access key identifiers expect.
const LONGEST: usize = 128;
/// Fewest bytes of a master key.
pub const MASTER_BYTES: usize = 32;

/// Longest life of a key that leaves the controller of jobs, in seconds.
pub const LIFE: u64 = 24 * 3600;

/// What the holder of a key may do with the objects below its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and list.
    ReadOnly,
    /// Also write and remove, until the prefix is closed.
    ReadWrite,
    /// The same, also when the prefix is closed; and close the prefix.
    Manage,
}

/// What a key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Path of the directory that the key opens, without a slash at its end: letters, digits and `.-_/`.
    pub prefix: String,
    /// What the holder may do there.
    pub access: Access,
    /// When the key ends, in seconds since 1970.
    pub expires: u64,
}

/// A key, as S3 clients take it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Access key identifier.
    pub id: String,
    /// Secret access key.
    pub secret: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a key cannot be issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadScope {
    /// The master key is too short.
    #[error("the master key has fewer than {MASTER_BYTES} bytes")]
    Master,
    /// The prefix is no path.
    #[error("prefix {0:?}: {1}")]
    Path(String, BadPath),
    /// The prefix has characters that an identifier cannot carry.
    #[error("prefix {0:?} has other characters than letters, digits and `.-_/`")]
    Characters(String),
    /// The identifier would be too long.
    #[error("prefix {0:?} is too long for an identifier of {LONGEST} bytes")]
    Long(String),
}

/// Why a key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No identifier of ours.
    #[error("this access key identifier was not issued here")]
    Unknown,
    /// The time of the key has passed.
    #[error("this access key has expired")]
    Expired,
}

impl Scope {
    /// Whether the key opens the object `key`.
    pub fn covers(&self, key: &str) -> bool {
        let below = key.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|path| check_key(path).is_ok())
    }

    /// Whether the key opens a listing of the objects whose keys begin with `prefix`.
    pub fn covers_listing(&self, prefix: &str) -> bool {
        let below = prefix.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|path| path.is_empty() || check_key(path.strip_suffix('/').unwrap_or(path)).is_ok())
    }

    fn id(&self) -> Result<String, BadScope> {
        let prefix = &self.prefix;
        check_key(prefix).map_err(|why| BadScope::Path(prefix.clone(), why))?;
        if !prefix.chars().all(|c| c.is_ascii_alphanumeric() || ".-_/".contains(c)) {
            return Err(BadScope::Characters(prefix.clone()));
        }
        let access = match self.access {
            Access::ReadOnly => 'r',
            Access::ReadWrite => 'w',
            Access::Manage => 'm',
        };
        let below = prefix.replace('/', "~");
        let id = format!("{FORM}{BETWEEN}{access}{BETWEEN}{:x}{BETWEEN}{below}", self.expires);
        if id.len() > LONGEST { Err(BadScope::Long(prefix.clone())) } else { Ok(id) }
    }

    fn parse(id: &str) -> Option<Self> {
        let mut parts = id.splitn(4, BETWEEN);
        let (form, access, expires, below) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let access = match (form, access) {
            (FORM, "r") => Access::ReadOnly,
            (FORM, "w") => Access::ReadWrite,
            (FORM, "m") => Access::Manage,
            _ => return None,
        };
        let expires = u64::from_str_radix(expires, 16).ok()?;
        let scope = Self { prefix: below.replace(BETWEEN, "/"), access, expires };
        // One scope has one identifier: another spelling, such as leading zeros, is none.
        (scope.id().as_deref() == Ok(id)).then_some(scope)
    }
}

/// Makes the key that opens `scope`; the same for the same scope.
///
/// # Errors
/// When the master key is too short, or no identifier can carry the scope.
pub fn issue(master: &[u8], scope: &Scope) -> Result<Key, BadScope> {
    if master.len() < MASTER_BYTES {
        return Err(BadScope::Master);
    }
    let id = scope.id()?;
    let secret = secret(master, &id);
    Ok(Key { id, secret })
}

/// What the key with this identifier opens at `now` (seconds since 1970), and its secret. Whether the client knows the secret
/// is seen by the signature of its request.
///
/// # Errors
/// When the identifier is none of ours, or its time has passed.
pub fn judge(master: &[u8], id: &str, now: u64) -> Result<(Scope, String), Refused> {
    let scope = Scope::parse(id).filter(|_| master.len() >= MASTER_BYTES).ok_or(Refused::Unknown)?;
    if now >= scope.expires {
        return Err(Refused::Expired);
    }
    Ok((scope, secret(master, id)))
}

fn secret(master: &[u8], id: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, master);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: &[u8] = &[7; MASTER_BYTES];

    fn scope(prefix: &str) -> Scope {
        Scope { prefix: prefix.into(), access: Access::ReadWrite, expires: 1_800_000_000 }
    }

    #[test]
    fn a_key_opens_what_its_identifier_says_until_it_expires() {
        let scope = scope("team-a/6f1c0b52-0d7e-4a52-9a44-3d4b58d1a6d9");
        let key = issue(MASTER, &scope).unwrap();
        assert_eq!(key.id, "l1~w~6b49d200~team-a~6f1c0b52-0d7e-4a52-9a44-3d4b58d1a6d9");
        assert_eq!(key.secret.len(), 43);
        assert_eq!(judge(MASTER, &key.id, scope.expires - 1), Ok((scope.clone(), key.secret.clone())));
        assert_eq!(judge(MASTER, &key.id, scope.expires), Err(Refused::Expired));
        let (_, other) = judge(&[8; MASTER_BYTES], &key.id, 0).unwrap();
        assert_ne!(other, key.secret, "another master key");
        for access in [Access::ReadOnly, Access::Manage] {
            let other = Scope { access, ..scope.clone() };
            let issued = issue(MASTER, &other).unwrap();
            assert_ne!(issued.secret, key.secret);
            assert_eq!(judge(MASTER, &issued.id, 0).unwrap().0, other);
        }
        assert!(!format!("{key:?}").contains(&key.secret));
    }

    #[test]
    fn a_namespace_and_a_uid_fit() {
        let prefix = format!("{}/{}", "n".repeat(63), "u".repeat(36));
        assert!(issue(MASTER, &scope(&prefix)).unwrap().id.len() <= LONGEST);
        let long = "p".repeat(115);
        assert_eq!(issue(MASTER, &scope(&long)), Err(BadScope::Long(long)));
    }

    #[test]
    fn scopes_that_no_identifier_can_carry() {
        assert_eq!(issue(&[7; 31], &scope("a")), Err(BadScope::Master));
        assert_eq!(judge(&[7; 31], "l1~w~6b49d200~a", 0), Err(Refused::Unknown));
        for (prefix, why) in [("", BadPath::Empty), ("a/", BadPath::Empty), ("a/../b", BadPath::Dots)] {
            assert_eq!(issue(MASTER, &scope(prefix)), Err(BadScope::Path(prefix.into(), why)));
        }
        for prefix in ["a~b", "a b", "ü", "a%2f"] {
            assert_eq!(issue(MASTER, &scope(prefix)), Err(BadScope::Characters(prefix.into())));
        }
    }

    #[test]
    fn other_spellings_are_no_identifiers() {
        for id in [
            "",
            "AKIAIOSFODNN7EXAMPLE",
            "l2~w~6b49d200~a",
            "l1~x~6b49d200~a",
            "l1~w~06b49d200~a",
            "l1~w~6B49D200~a",
            "l1~w~+6b49d200~a",
            "l1~w~6b49d200~",
            "l1~w~6b49d200~a~",
            "l1~w~6b49d200~a/b",
            "l1~w~6b49d200~..~b",
            "l1~w~1ffffffffffffffff~a",
        ] {
            assert_eq!(judge(MASTER, id, 0), Err(Refused::Unknown), "{id}");
        }
    }

    #[test]
    fn a_prefix_is_a_directory() {
        let scope = scope("jobs/a");
        for (key, covered) in [
            ("jobs/a/x", true),
            ("jobs/a/.liqo/manifest.json", true),
            ("jobs/a/b/c", true),
            ("jobs/a", false),
            ("jobs/a/", false),
            ("jobs/ab/x", false),
            ("jobs/a/../b/x", false),
            ("jobs/a//x", false),
            ("jobs/b/x", false),
            ("", false),
        ] {
            assert_eq!(scope.covers(key), covered, "{key}");
        }
        for (prefix, covered) in [
            ("jobs/a/", true),
            ("jobs/a/b", true),
            ("jobs/a/b/", true),
            ("jobs/a", false),
            ("jobs/ab", false),
            ("jobs/", false),
            ("jobs/a/../b", false),
            ("jobs/a/..", false),
            ("jobs/a//", false),
            ("", false),
        ] {
            assert_eq!(scope.covers_listing(prefix), covered, "{prefix}");
        }
    }

    /// An identifier that is accepted is the one that is issued for its scope, and covers nothing outside of its prefix.
    #[test]
    fn fuzz_key() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "key", |bytes| {
            let Ok(id) = std::str::from_utf8(bytes) else { return };
            if let Ok((scope, secret)) = judge(MASTER, id, 0) {
                assert_eq!(issue(MASTER, &scope), Ok(Key { id: id.to_owned(), secret }));
                assert!(!scope.covers(&format!("{}/../x", scope.prefix)) && !scope.covers("x"));
            }
        });
    }
}
