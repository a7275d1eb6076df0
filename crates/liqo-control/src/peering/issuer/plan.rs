//! Whether a request for an identity is granted, and what is done then: decisions over values.

use k8s_openapi::api::core::v1::Secret;

use super::{
    super::token::{TokenRights, Wrong},
    issue::{Choice, Held, choose},
};

/// The tenant namespace of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The namespace exists.
    Known(String),
    /// The peer has none; this cluster has so many tenant namespaces.
    Missing { tenants: usize },
    /// The namespace cannot be used: the reason.
    Unusable(String),
}

/// Everything a grant depends on besides the credential.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Whether the ID of the peer is banned.
    pub(super) is_banned: bool,
    pub(super) room: Room,
    /// Most tenant namespaces this cluster makes.
    pub(super) max_tenants: usize,
    /// What was certified before for the ID, compared with the request.
    pub(super) held: Option<Held>,
    /// URL of the API server for peers, or the reason why there is none.
    pub(super) api_server_url: Result<String, String>,
}

/// What is done for a request that is granted, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Issuance {
    /// The one-time token to bind to the peer.
    pub(super) bind: Option<Secret>,
    /// The tenant namespace; `None`: it is to be made.
    pub(super) namespace: Option<String>,
    /// Whether a certificate is signed; else the stored certificate is given again.
    pub(super) sign: bool,
    /// Whether the peer may replace the token that this cluster shows to it.
    pub(super) may_replace_token: bool,
    pub(super) api_server_url: String,
}

/// Why a request is not granted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    Token(Wrong),
    Banned,
    Room(String),
    /// The ID belongs to another key.
    AnotherKey,
    /// This cluster has so many tenant namespaces.
    Full {
        tenants: usize,
    },
    NoUrl(String),
}

/// The rights of a caller. `token`: the token of the caller, judged; `None`: the caller has proved to hold the key that was
/// certified before. Unless a token `is_needed`, a token that is refused counts as the token of the cluster.
///
/// # Errors
/// Why the caller has no rights.
pub(super) fn rights(token: Option<Result<TokenRights, Wrong>>, is_needed: bool) -> Result<TokenRights, Refusal> {
    match token {
        None => Ok(TokenRights { new_key: true, unused: None }),
        Some(Ok(rights)) => Ok(rights),
        Some(Err(_)) if !is_needed => Ok(TokenRights::default()),
        Some(Err(wrong)) => Err(Refusal::Token(wrong)),
    }
}

/// Decides about a caller with these rights.
///
/// # Errors
/// Why the request is not granted.
pub(super) fn plan(rights: TokenRights, seen: Seen) -> Result<Issuance, Refusal> {
    if seen.is_banned {
        return Err(Refusal::Banned);
    }
    let namespace = match seen.room {
        Room::Known(name) => Some(name),
        Room::Unusable(why) => return Err(Refusal::Room(why)),
        Room::Missing { tenants } if tenants >= seen.max_tenants => return Err(Refusal::Full { tenants }),
        Room::Missing { .. } => None,
    };
    let sign = match choose(seen.held, rights.new_key) {
        Choice::Refuse => return Err(Refusal::AnotherKey),
        Choice::Sign => true,
        Choice::Again => false,
    };
    let api_server_url = seen.api_server_url.map_err(Refusal::NoUrl)?;
    Ok(Issuance { bind: rights.unused, namespace, sign, may_replace_token: rights.new_key, api_server_url })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_follow_from_a_proof_or_a_valid_token() {
        let unused = || TokenRights { new_key: false, unused: Some(Secret::default()) };
        let vouched = || TokenRights { new_key: true, unused: None };
        let wrong = || Wrong::Unknown;
        for (what, token, needed, wanted) in [
            ("a proof", None, true, Ok(vouched())),
            ("a one-time token", Some(Ok(unused())), true, Ok(unused())),
            ("the token of the cluster", Some(Ok(TokenRights::default())), true, Ok(TokenRights::default())),
            ("a wrong token", Some(Err(wrong())), true, Err(Refusal::Token(wrong()))),
            ("a wrong token where none is needed", Some(Err(wrong())), false, Ok(TokenRights::default())),
        ] {
            assert_eq!(rights(token, needed), wanted, "{what}");
        }
    }

    #[test]
    fn a_request_is_granted_or_refused_for_one_reason() {
        let url = || Ok("https://here".to_owned());
        let known = || Room::Known("tenant".to_owned());
        let held = |is_same, is_due| Some(Held { is_same, is_due });
        let plain = TokenRights::default;
        let vouched = || TokenRights { new_key: true, unused: None };
        let once = || TokenRights { new_key: false, unused: Some(Secret::default()) };
        let grant = |bind: Option<Secret>, room: Option<&str>, sign, may_replace_token| {
            let (namespace, api_server_url) = (room.map(str::to_owned), "https://here".to_owned());
            Ok(Issuance { bind, namespace, sign, may_replace_token, api_server_url })
        };
        let secret = || Some(Secret::default());
        let why = || "two namespaces".to_owned();
        for (what, rights, banned, room, held, url, wanted) in [
            ("new", once(), false, Room::Missing { tenants: 3 }, None, url(), grant(secret(), None, true, false)),
            (
                "one too many",
                once(),
                false,
                Room::Missing { tenants: 4 },
                None,
                url(),
                Err(Refusal::Full { tenants: 4 }),
            ),
            ("known, full", plain(), false, known(), None, url(), grant(None, Some("tenant"), true, false)),
            (
                "the same request",
                plain(),
                false,
                known(),
                held(true, false),
                url(),
                grant(None, Some("tenant"), false, false),
            ),
            (
                "the same, due",
                plain(),
                false,
                known(),
                held(true, true),
                url(),
                grant(None, Some("tenant"), true, false),
            ),
            ("another key", plain(), false, known(), held(false, false), url(), Err(Refusal::AnotherKey)),
            ("another key, after the end", once(), false, known(), held(false, true), url(), Err(Refusal::AnotherKey)),
            (
                "a new key",
                vouched(),
                false,
                known(),
                held(false, false),
                url(),
                grant(None, Some("tenant"), true, true),
            ),
            ("banned", vouched(), true, known(), held(true, false), url(), Err(Refusal::Banned)),
            ("banned, new", once(), true, Room::Missing { tenants: 9 }, None, url(), Err(Refusal::Banned)),
            ("no room", plain(), false, Room::Unusable(why()), None, url(), Err(Refusal::Room(why()))),
            ("no URL", plain(), false, known(), None, Err(why()), Err(Refusal::NoUrl(why()))),
        ] {
            let seen = Seen { is_banned: banned, room, max_tenants: 4, held, api_server_url: url };
            assert_eq!(plan(rights, seen), wanted, "{what}");
        }
    }
}
