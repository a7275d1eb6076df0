//! A headless Chromium, driven by chromedriver: what a person sees, judged by axe.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use liqo_test::{
    Stage, assets,
    run::{Killed, command, feed, output},
    stage::LONG,
    wait_for,
};
use serde_json::{Value, json};

use super::http::{Site, tempdir};

const WIDE: (u32, u32) = (1280, 900);
const NARROW: (u32, u32) = (390, 900);
/// Most bytes of a page with everything that it loads.
const HEAVIEST: u64 = 100_000;

/// A browser with one window.
struct Browser {
    /// The script of axe.
    axe: String,
    /// Ends with the browser.
    _driver: Killed,
    session: String,
    profile: PathBuf,
}

impl Browser {
    fn start() -> Result<Self> {
        let axe = output(&mut command(assets::source().join("testbed/browser")))?;
        let axe = fs::read_to_string(axe.trim()).context("cannot read axe")?;
        let (port, profile) = (9515 + std::process::id() % 1000, tempdir("browser")?);
        let driver = command("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run chromedriver")?;
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "acceptInsecureCerts": true, "goog:chromeOptions": {"args": arguments}}}});
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { axe, _driver: Killed(driver), session: String::new(), profile };
        let made = wait_for("a browser", Duration::from_secs(30), || {
            browser.session.clone_from(&base);
            browser.post("", &wanted).map(Some)
        })?;
        browser.session = format!("{base}/{}", made["sessionId"].as_str().context("no session")?);
        Ok(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut curl = command("curl");
        curl.args(["-sS", "--max-time", "30", "-H", "Content-Type: application/json", "--data-binary", "@-"]);
        let answer: Value =
            serde_json::from_str(&feed(curl.arg(format!("{}{path}", self.session)), &body.to_string())?)?;
        let value = answer["value"].clone();
        ensure!(value.get("error").is_none_or(Value::is_null), "{path}: {value}");
        Ok(value)
    }

    fn open(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({ "url": url })).map(drop)
    }

    /// Runs a script; gives what it returns.
    fn run(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until the text of the page has these words.
    fn shows(&self, words: &str) -> Result<()> {
        wait_for(&format!("the page shows {words:?}"), LONG, || {
            let text = self.run("return document.body.innerText")?;
            let text = text.as_str().unwrap_or_default();
            ensure!(text.contains(words), "{text}");
            Ok(Some(()))
        })
    }

    fn element(&self, selector: &str) -> Result<String> {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}))?;
        let id = found.as_object().and_then(|all| all.values().next()?.as_str()).context("no element")?;
        Ok(id.to_owned())
    }

    fn resize(&self, (width, height): (u32, u32)) -> Result<()> {
        self.post("/window/rect", &json!({"width": width, "height": height})).map(drop)
    }

    /// Lets pages be seen as by who has asked the system for `light` or `dark`.
    fn prefers(&self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let media = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.post("/goog/cdp/execute", &media).map(drop)
    }

    /// Keeps a picture of the page beside the times of stories.
    fn picture(&self, name: &str) -> Result<()> {
        let mut curl = command("curl");
        let printed = output(curl.args(["-sS", "--max-time", "30"]).arg(format!("{}/screenshot", self.session)))?;
        let answer: Value = serde_json::from_str(&printed)?;
        let folder = assets::target().join("screenshots");
        fs::create_dir_all(&folder)?;
        let bytes = STANDARD.decode(answer["value"].as_str().context("no picture")?);
        let bytes = bytes.map_err(|error| anyhow!("the picture is not base64: {error}"))?;
        Ok(fs::write(folder.join(format!("{name}.png")), bytes)?)
    }

    /// What axe finds wrong with the page: nothing.
    fn is_for_everybody(&self, page: &str) -> Result<()> {
        self.run(&format!("{}; return 0", self.axe))?;
        let script =
            "const done = arguments[0]; axe.run().then(found => done(found.violations), error => done(String(error)))";
        let found = self.post("/execute/async", &json!({"script": script, "args": []}))?;
        let all = found.as_array().with_context(|| format!("axe did not run: {found}"))?;
        let told: Vec<_> = all.iter().map(|one| format!("{}: {}", one["id"], one["nodes"][0]["html"])).collect();
        ensure!(told.is_empty(), "axe finds on {page}:\n{}", told.join("\n"));
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Ok(mut quit) = command("curl").args(["-sS", "-X", "DELETE", &self.session]).stdout(Stdio::null()).spawn()
        {
            let _ = quit.wait();
        }
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// Looks at an open page in every size and scheme.
fn looks(browser: &Browser, name: &str, path: &str) -> Result<()> {
    for ((size, word), scheme) in
        [(WIDE, "wide"), (NARROW, "narrow")].into_iter().flat_map(|size| ["light", "dark"].map(|scheme| (size, scheme)))
    {
        browser.resize(size)?;
        browser.prefers(scheme)?;
        browser.is_for_everybody(&format!("{path}, {word} and {scheme}"))?;
        browser.picture(&format!("{name}-{word}-{scheme}"))?;
        let over = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")?;
        ensure!(over.as_i64() <= Some(0), "{path} is {over} pixels too wide for {word}");
    }
    browser.prefers("light")
}

/// Signs in, looks at every page wide and narrow, sees a change come by itself, and signs out.
pub(crate) fn story(stage: &Stage, site: &Site, token: &str) -> Result<()> {
    let browser = Browser::start()?;
    browser.resize(WIDE)?;
    browser.open(&site.url)?;
    browser.shows("Sign in")?;
    looks(&browser, "sign-in", "the form")?;
    browser.resize(WIDE)?;
    let field = browser.element("#token")?;
    browser.post(&format!("/element/{field}/value"), &json!({ "text": token }))?;
    let button = browser.element("main button")?;
    browser.post(&format!("/element/{button}/click"), &json!({}))?;
    browser.shows("milan")?;
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
        looks(&browser, name, path)?;
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
