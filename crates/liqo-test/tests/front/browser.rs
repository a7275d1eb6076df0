//! The status page in a browser.

use anyhow::{Result, ensure};
use liqo_test::{
    Stage,
    browser::{Browser, WIDE},
};
use serde_json::json;

use super::http::Site;

/// Most bytes of a page with everything that it loads.
const HEAVIEST: u64 = 100_000;

/// Signs in, looks at every page wide and narrow, sees a change come by itself, and signs out.
pub(crate) fn story(stage: &Stage, site: &Site, token: &str) -> Result<()> {
    let browser = Browser::start()?;
    browser.resize(WIDE)?;
    browser.open(&site.url)?;
    browser.shows("Sign in")?;
    browser.looks("sign-in", "the form")?;
    browser.resize(WIDE)?;
    browser.sign_in(&site.url, token, "milan")?;
    let foreign = browser.run(
        "return performance.getEntriesByType('resource').filter(one => !one.name.startsWith(location.origin)).length",
    )?;
    ensure!(foreign == 0, "{foreign} foreign resources");
    for (name, path) in [("peers", "/"), ("namespaces", "/namespaces"), ("pods", "/pods"), ("api", "/front/api")] {
        browser.open(&format!("{}{path}", site.url))?;
        let weight =
            browser.run("return performance.getEntries().reduce((sum, one) => sum + (one.encodedBodySize ?? 0), 0)")?;
        let is_light = weight.as_u64().is_some_and(|bytes| (1000..HEAVIEST).contains(&bytes));
        ensure!(is_light, "{path} has {weight} bytes with everything");
        browser.looks(name, path)?;
    }
    browser.resize(WIDE)?;
    browser.open(&site.url)?;
    browser.run("window.sameDocument = true")?;
    browser.shows("live, as of")?;
    let rome = stage.cluster("rome");
    stage.offload(rome, "later", &[])?;
    browser.shows("3 namespaces offloaded")?;
    ensure!(browser.run("return window.sameDocument === true")? == true, "the page was loaded anew");
    let button = browser.element("header button")?;
    browser.post(&format!("/element/{button}/click"), &json!({}))?;
    browser.shows("Sign in")?;
    stage.liqoctl(rome, &["unoffload", "namespace", "later"]).map(drop)
}
