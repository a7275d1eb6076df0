//! Strangers: a peer with a valid identity, its pods, an anonymous caller and a tenant of the home cluster try to take what
//! they were not given.
//!
//! One stage for all stories: `rome` is home, `milan` an honest peer in both directions, `turin` a hostile one: it peered
//! like anybody, then its controllers were stopped, and the tests act with its certificate. After each story the honest peer
//! is served, nothing of ours has restarted and home's API server answers; during each, memory and the time that a change for
//! the honest peer takes are measured, and the last story prints the table. The stories are told in the order of their
//! numbers; the last one takes the hostile peer away.

mod attack {
    pub(crate) mod addresses;
    pub(crate) mod after;
    pub(crate) mod crowd;
    pub(crate) mod csr;
    pub(crate) mod door;
    pub(crate) mod figures;
    pub(crate) mod flood;
    pub(crate) mod forger;
    pub(crate) mod glutton;
    pub(crate) mod holes;
    pub(crate) mod hostile;
    pub(crate) mod land;
    pub(crate) mod liar;
    pub(crate) mod metrics;
    pub(crate) mod no;
    pub(crate) mod pod;
    pub(crate) mod powers;
    pub(crate) mod provider;
    pub(crate) mod raid;
    pub(crate) mod restless;
    pub(crate) mod reviews;
    pub(crate) mod root;
    pub(crate) mod served;
    pub(crate) mod server;
    pub(crate) mod thief;
    pub(crate) mod trespasser;
    pub(crate) mod tunnels;
}

use anyhow::Result;
use attack::{
    addresses, figures, forger, glutton, holes, land, liar, no, pod, provider,
    raid::{self, Raid},
    root, thief, trespasser,
};
use liqo_test::Suite;

static SUITE: Suite<Raid> = Suite::new("attack", Raid::raise);

fn story(attack: impl FnOnce(&Raid) -> Result<()>) -> Result<()> {
    SUITE.tell(|raid| {
        holes::forget();
        // A successful attack on the API server would falsify every later story.
        raid::answers(raid)?;
        let told = [figures::during(raid, attack), raid::all_is_calm(raid)];
        holes::none(told.into_iter().filter_map(Result::err))
    })
}

#[test]
fn story_01_the_forger_at_the_door_gets_no_certificate_but_its_own() -> Result<()> {
    story(forger::story)
}

#[test]
fn story_02_the_thief_sees_no_secret_of_a_namespace_it_was_not_given() -> Result<()> {
    story(thief::story)
}

#[test]
fn story_03_the_uninvited_provider_provides_nothing() -> Result<()> {
    story(provider::story)
}

#[test]
fn story_04_the_root_pod_does_not_run() -> Result<()> {
    story(root::story)
}

#[test]
fn story_05_the_glutton_gets_what_it_was_offered() -> Result<()> {
    story(glutton::story)
}

#[test]
fn story_06_the_land_grabber_moves_no_route() -> Result<()> {
    story(land::story)
}

#[test]
fn story_07_services_and_endpoints_of_a_peer_stay_in_its_namespace() -> Result<()> {
    story(addresses::story)
}

#[test]
fn story_08_the_trespasser_inside_reaches_no_peer() -> Result<()> {
    story(trespasser::story)
}

#[test]
fn story_09_the_man_in_the_pod_finds_closed_doors() -> Result<()> {
    story(pod::story)
}

#[test]
fn story_10_the_liar_on_the_wire_stops_nobodys_replication() -> Result<()> {
    story(liar::story)
}

#[test]
fn story_11_no_means_no() -> Result<()> {
    let told = story(|raid| {
        no::story(raid)?;
        figures::nothing_leaks(raid)
    });
    figures::table();
    told
}
