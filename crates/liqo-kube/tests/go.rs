//! What our own readers take, Kubernetes reads equally: its code is asked (`testbed/kube/judge`).

use base64::{Engine, prelude::BASE64_STANDARD};
use liqo_core::quantity::Amount;
use liqo_kube::certs::{SigningRequest, Subject, facts_der};
use liqo_test::{
    assets,
    run::{command, feed},
};
use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;

/// Made-up input of one kind.
const COUNT: usize = 3000;

/// What Kubernetes reads of each input; null: nothing.
fn judged(kind: &str, inputs: &[Vec<u8>]) -> Vec<Value> {
    assets::ensure().expect("the test bed is installed");
    let lines: String = inputs.iter().map(|input| format!("{kind} {}\n", BASE64_STANDARD.encode(input))).collect();
    let answers = feed(&mut command(assets::bin().join("judge")), &lines).expect("the judge answers");
    let answers: Vec<_> = answers.lines().map(|line| serde_json::from_str(line).expect("an answer is JSON")).collect();
    assert_eq!(answers.len(), inputs.len());
    answers
}

/// Values of a strategy, the same at each run.
fn made<T>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..COUNT).map(|_| strategy.new_tree(&mut runner).expect("no value is refused").current()).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().expect("a text")).expect("base64")
}

/// Kubernetes keeps decimal amounts beyond 2^63-1 and answers with 2^63-1 when it is asked; we read that number at once. We do not read
/// a suffix without a digit, which is nothing to Kubernetes, nor a number of more digits than can be
/// counted exactly.
#[test]
fn quantities_mean_to_kubernetes_what_they_mean_to_us() {
    let number = "[+-]?([0-9]{1,20}(\\.[0-9]{0,12})?|\\.[0-9]{1,12})([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?";
    let core = concat!(env!("CARGO_MANIFEST_DIR"), "/../liqo-core");
    let mut texts: Vec<String> = made(number);
    let recorded =
        liqo_corpus::sample(core, "quantity", COUNT).into_iter().filter_map(|one| String::from_utf8(one).ok());
    texts.extend(recorded.filter(|text| !is_endless(text)));
    let inputs: Vec<_> = texts.iter().map(|text| text.clone().into_bytes()).collect();
    let mut read = 0;
    for (text, answer) in texts.iter().zip(judged("quantity", &inputs)) {
        let theirs = answer.as_str().map(counted);
        let number = text.chars().take_while(|one| !one.is_ascii_alphabetic());
        let digits = number.filter(char::is_ascii_digit).count();
        match Amount::parse(text) {
            None if digits > 38 => {}
            None if digits == 0 => assert!(theirs.is_none_or(|theirs| theirs == Amount::ZERO), "{text:?}: {answer}"),
            ours => assert_eq!(ours, theirs, "{text:?}: {answer}"),
        }
        read += usize::from(theirs.is_some());
    }
    assert!(read > COUNT, "{read} of {} were quantities", texts.len());
}

/// Whether a text has an exponent of more than three digits: Kubernetes would count with as many digits as the exponent says.
fn is_endless(text: &str) -> bool {
    let exponent = text.split_once(['e', 'E']).map(|(_, exponent)| exponent.trim_start_matches(['+', '-']));
    exponent.is_some_and(|exponent| exponent.len() > 3)
}

/// The amount of so many billionths, 2^63-1 at most.
fn counted(billionths: &str) -> Amount {
    let largest = Amount::whole(i64::MAX);
    match (billionths.strip_prefix('-'), billionths.trim_start_matches('-').len() > 38) {
        (None, true) => largest,
        (Some(_), true) => Amount::ZERO - largest,
        (_, false) => Amount::parse(&format!("{billionths}n")).expect("digits"),
    }
}

#[test]
fn signing_requests_say_to_kubernetes_what_they_say_to_us() {
    let mut inputs = liqo_corpus::sample(env!("CARGO_MANIFEST_DIR"), "signing_request", COUNT);
    inputs.extend(made(names()).iter().map(|name| pem(&signed(name)).into_bytes()));
    let mut taken = 0;
    for (input, answer) in inputs.iter().zip(judged("request", &inputs)) {
        let text = String::from_utf8_lossy(input);
        let Ok(request) = SigningRequest::read(&text) else { continue };
        taken += 1;
        assert_eq!(bytes(&answer["der"]), request.der(), "other bytes are signed than those that were read: {text}");
        let Subject { common_name, organizations } = request.subject().clone();
        assert_eq!(answer["commonName"], common_name, "{text}");
        assert_eq!(answer["organizations"], serde_json::json!(organizations), "{text}");
        assert_eq!(answer["names"], 2, "{text}");
        // Other attributes than extensions, like a challenge password, make a request less than bare, too.
        assert!(!request.is_bare() || answer["extensions"] == 0, "{text}");
        // The signer writes the subject anew: what comes of it is what was asked for.
        let certificate = bytes(&answer["certificate"]);
        assert_eq!(facts_der(&certificate).unwrap().subject, *request.subject(), "{text}");
    }
    assert!(taken > 100, "{taken} of {} were taken", inputs.len());
}

/// Subjects of attributes that are right or nearly so, each in a part of its own or with the one before.
fn names() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![3 => Just(10_u8), 3 => Just(3), 1 => Just(11), 1 => any::<u8>()];
    let tag = select(vec![0x0c_u8, 0x0c, 0x13, 0x13, 0x14, 0x16, 0x1c, 0x1e]);
    let text = prop_oneof!["liqo.io", "[a-z0-9-]{1,36}", "[A-Za-z0-9 '()+,./:=?*@_-]{0,20}", "\\PC{0,12}"];
    let attribute = (kind, tag, text)
        .prop_map(|(kind, tag, text)| tlv(0x30, &[tlv(6, &[0x55, 4, kind]), tlv(tag, text.as_bytes())].concat()));
    let parts = prop::collection::vec(prop::collection::vec(attribute, 1..2), 1..4);
    let odd = parts.prop_map(|parts| parts.iter().flat_map(|part| tlv(0x31, &part.concat())).collect());
    let tag = || select(vec![0x0c_u8, 0x13]);
    let plain =
        (tag(), "[A-Za-z0-9 .:=-]{1,40}", tag(), "\\PC{1,40}|[a-z0-9-]{36}").prop_map(|(o, organization, c, name)| {
            let part = |kind, tag, text: &str| {
                tlv(0x31, &tlv(0x30, &[tlv(6, &[0x55, 4, kind]), tlv(tag, text.as_bytes())].concat()))
            };
            [part(10, o, &organization), part(3, c, &name)].concat()
        });
    prop_oneof![odd, plain]
}

fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [.., high, low] = contents.len().to_be_bytes();
    let length = match (high, low) {
        (0, 0..0x80) => vec![low],
        (0, _) => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, contents].concat()
}

/// A request with this name, signed by its key.
fn signed(name: &[u8]) -> Vec<u8> {
    const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any seed is one");
    let bits = |bytes: &[u8]| tlv(3, &[&[0], bytes].concat());
    let public = tlv(0x30, &[ED25519.to_vec(), bits(key.public_key().as_ref())].concat());
    let info = tlv(0x30, &[tlv(2, &[0]), tlv(0x30, name), public, vec![0xa0, 0]].concat());
    let signature = bits(key.sign(&info).as_ref());
    tlv(0x30, &[info, ED25519.to_vec(), signature].concat())
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
}
