//! The messages on the wire: proto3, field numbers of Liqo 0.8.3. An absent field is an empty text or `false`.

use prost::Message;

/// Asks under which address the peer must use a local endpoint.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MapRequest {
    /// The peer.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// Address of the endpoint, as it is here.
    #[prost(string, tag = "2")]
    pub ip: String,
}

/// The address the peer must use.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MapResponse {
    /// The address.
    #[prost(string, tag = "1")]
    pub ip: String,
}

/// Gives a local endpoint's address back.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UnmapRequest {
    /// The peer.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// Address of the endpoint, as it is here.
    #[prost(string, tag = "2")]
    pub ip: String,
}

/// No fields.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct UnmapResponse {}

/// Asks under which address this cluster reaches a pod of the peer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetHomePodIpRequest {
    /// The peer.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// Address of the pod, as it is there.
    #[prost(string, tag = "2")]
    pub ip: String,
}

/// The address this cluster must use.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetHomePodIpResponse {
    /// The address.
    #[prost(string, tag = "1")]
    pub home_ip: String,
}

/// Asks whether an address lies in the pod network of this cluster.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BelongsRequest {
    /// The address.
    #[prost(string, tag = "1")]
    pub ip: String,
}

/// Whether it does.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BelongsResponse {
    /// The answer.
    #[prost(bool, tag = "1")]
    pub belongs: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key of a field (its number, wire type 2), length, text: https://protobuf.dev/programming-guides/encoding/
    fn text(number: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(text.len()).unwrap()];
        bytes.extend(text.bytes());
        bytes
    }

    #[test]
    fn bytes_are_those_of_the_protobuf_encoding() {
        let both = [text(1, "peer"), text(2, "10.0.0.1")].concat();
        let (cluster_id, ip) = ("peer".to_owned(), "10.0.0.1".to_owned());
        assert_eq!(MapRequest { cluster_id: cluster_id.clone(), ip: ip.clone() }.encode_to_vec(), both);
        assert_eq!(UnmapRequest { cluster_id: cluster_id.clone(), ip: ip.clone() }.encode_to_vec(), both);
        assert_eq!(GetHomePodIpRequest { cluster_id, ip: ip.clone() }.encode_to_vec(), both);
        assert_eq!(MapResponse { ip: ip.clone() }.encode_to_vec(), text(1, "10.0.0.1"));
        assert_eq!(GetHomePodIpResponse { home_ip: ip.clone() }.encode_to_vec(), text(1, "10.0.0.1"));
        assert_eq!(BelongsRequest { ip }.encode_to_vec(), text(1, "10.0.0.1"));
        assert_eq!(BelongsResponse { belongs: true }.encode_to_vec(), [1 << 3, 1]);
        assert!(UnmapResponse {}.encode_to_vec().is_empty());
    }

    #[test]
    fn fields_of_a_newer_generation_are_skipped() {
        let bytes = [text(1, "10.0.0.1"), text(9, "new")].concat();
        assert_eq!(MapResponse::decode(bytes.as_slice()).unwrap().ip, "10.0.0.1");
        assert!(MapResponse::decode([0xff, 0xff].as_slice()).is_err());
    }

    #[test]
    fn fuzz_messages() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "message", |bytes| {
            if let Ok(asked) = MapRequest::decode(bytes) {
                assert_eq!(MapRequest::decode(&asked.encode_to_vec()[..]), Ok(asked.clone()));
                let _ = asked.ip.parse::<std::net::IpAddr>();
            }
            let _ = (UnmapRequest::decode(bytes), GetHomePodIpRequest::decode(bytes), BelongsRequest::decode(bytes));
        });
    }

    proptest::proptest! {
        #[test]
        fn fuzz_whatever_comes_is_a_message_or_none(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = (MapRequest::decode(&bytes[..]), UnmapRequest::decode(&bytes[..]), BelongsRequest::decode(&bytes[..]));
        }

        #[test]
        fn any_text_survives_the_wire(cluster_id in ".{0,80}", ip in ".{0,80}") {
            let asked = MapRequest { cluster_id, ip };
            proptest::prop_assert_eq!(MapRequest::decode(&asked.encode_to_vec()[..]), Ok(asked));
        }
    }
}
