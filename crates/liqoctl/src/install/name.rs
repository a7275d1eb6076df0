//! A name for a cluster nobody named: an adjective and a noun.

use ring::rand::{SecureRandom, SystemRandom};

const ADJECTIVES: [&str; 48] = [
    "amber", "ancient", "autumn", "bold", "brave", "bright", "brisk", "calm", "clever", "cool", "crimson", "curious",
    "daring", "eager", "early", "emerald", "fancy", "fearless", "gentle", "golden", "graceful", "green", "happy",
    "hidden", "humble", "jolly", "kind", "lively", "lucky", "mellow", "misty", "nimble", "noble", "patient", "proud",
    "purple", "quick", "quiet", "royal", "rustic", "scarlet", "serene", "silent", "silver", "sunny", "swift", "vivid",
    "wise",
];
const NOUNS: [&str; 48] = [
    "badger", "bay", "birch", "breeze", "brook", "cedar", "cliff", "cloud", "comet", "coral", "crane", "creek",
    "delta", "dune", "eagle", "falcon", "fern", "field", "fjord", "forest", "fox", "glacier", "harbor", "hawk",
    "heron", "hill", "island", "lagoon", "lake", "lynx", "maple", "meadow", "mesa", "moon", "oak", "ocean", "otter",
    "pine", "pond", "raven", "reef", "river", "rock", "spruce", "summit", "tiger", "valley", "willow",
];

/// Two words that people can say.
pub(crate) fn generate() -> String {
    let mut bytes = [0_u8; 2];
    // Without randomness it is always the same name: it can still be chosen with --cluster-name.
    let _ = SystemRandom::new().fill(&mut bytes);
    let [adjective, noun] = bytes.map(usize::from);
    format!("{}-{}", ADJECTIVES[adjective % ADJECTIVES.len()], NOUNS[noun % NOUNS.len()])
}

#[cfg(test)]
mod tests {
    use liqo_core::naming::dns_label_error;

    use super::*;

    #[test]
    fn every_name_is_a_label() {
        for words in [ADJECTIVES, NOUNS] {
            assert!(words.iter().all(|word| dns_label_error(word).is_none()));
        }
        assert_eq!(generate().split('-').count(), 2);
    }
}
