//! How many requests for an identity are under way at each place, and for how long: from the peer through the authentication
//! service ([`super::auth`]) and the controller manager ([`super::issuer`]) to the signer of the cluster.
//!
//! Keeps true: what one place lets through, the next one takes, so that no honest request is refused half-way; and whoever
//! waits hears the reason from the next place before giving up.

use std::time::Duration;

/// Processes of the authentication service that call at the same time: two replicas, or one and its successor during an update.
pub(super) const SERVICES: usize = 2;
/// Requests that one authentication service has passed on and that wait for an answer.
pub(super) const LINES: usize = 16;
/// Requests of these that strangers may have under way; the others are for peers that are known.
pub(super) const LINES_OF_STRANGERS: usize = LINES / 2;
/// Requests that one controller manager judges at once: all services may reach the same replica.
pub(super) const TURNS: usize = SERVICES * LINES;

/// Time the signer of the cluster may take.
pub(super) const SIGNER: Duration = Duration::from_secs(10);
/// Time for what the controller manager reads and writes beside.
pub(super) const JUDGING: Duration = Duration::from_secs(3);
/// Time a request waits for its line, or for its turn.
pub(super) const QUEUE: Duration = Duration::from_secs(1);
/// Time the authentication service waits for the controller manager: its turn, the judging, the signer.
pub(super) const LINE: Duration = QUEUE.saturating_add(JUDGING).saturating_add(SIGNER);

#[cfg(test)]
mod tests {
    use liqo_front::open;
    use liqo_kube::{reach, server::Limits};

    use super::*;

    #[test]
    fn what_one_place_lets_through_the_next_one_takes() {
        for (why, count, room) in [
            ("no line finds all turns taken by other lines", SERVICES * LINES, TURNS),
            ("known peers have lines of their own", LINES_OF_STRANGERS + 1, LINES),
            ("strangers have lines", 1, LINES_OF_STRANGERS),
            ("the port of the controller manager takes all lines of a service", LINES, Limits::DEFAULT.per_source),
            ("and all turns beside the reviews of an API server", TURNS + 200, Limits::DEFAULT.connections),
        ] {
            assert!(count <= room, "{why}: {count} of {room}");
        }
    }

    #[test]
    fn whoever_waits_hears_the_reason_before_giving_up() {
        assert!(LINE >= QUEUE + JUDGING + SIGNER, "the service hears that the signer was too slow");
        let answer = Limits::DEFAULT.answer.unwrap();
        assert!(
            answer > QUEUE + LINE,
            "the port of the service does not close earlier, nor that of the controller manager"
        );
        assert!(open::PATIENCE > QUEUE + LINE && open::PATIENCE < answer, "and a late answer is still an answer");
        // A peer that is of this version gives up earlier, asks again, and is given what was stored meanwhile; a slow service
        // of one peer must not hold up the work for others.
        assert!(reach::PATIENCE > QUEUE + JUDGING && reach::PATIENCE < LINE);
    }
}
