//! A headless Chromium, driven by chromedriver: what a person sees, judged by axe.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    assets,
    run::{Killed, command, feed, output},
    stage::LONG,
    wait_for,
};

/// A wide window, pixels.
pub const WIDE: (u32, u32) = (1280, 900);
/// A narrow window, pixels.
pub const NARROW: (u32, u32) = (390, 900);

/// A browser with one window.
pub struct Browser {
    /// The script of axe.
    axe: String,
    /// Ends with the browser.
    _driver: Killed,
    session: String,
    profile: PathBuf,
}

impl Browser {
    /// Starts a browser.
    ///
    /// # Errors
    /// When there is no Chromium or no axe.
    pub fn start() -> Result<Self> {
        let axe = output(&mut command(assets::source().join("testbed/browser")))?;
        let axe = fs::read_to_string(axe.trim()).context("cannot read axe")?;
        let port = 9515 + std::process::id() % 1000;
        let profile = std::env::temp_dir().join(format!("liqo-browser-{}", std::process::id()));
        fs::create_dir_all(&profile)?;
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

    /// A command of WebDriver below the session.
    ///
    /// # Errors
    /// When the driver refuses the command.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut curl = command("curl");
        curl.args(["-sS", "--max-time", "30", "-H", "Content-Type: application/json", "--data-binary", "@-"]);
        let answer: Value =
            serde_json::from_str(&feed(curl.arg(format!("{}{path}", self.session)), &body.to_string())?)?;
        let value = answer["value"].clone();
        ensure!(value.get("error").is_none_or(Value::is_null), "{path}: {value}");
        Ok(value)
    }

    /// Opens a page.
    ///
    /// # Errors
    /// When the page cannot be opened.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({ "url": url })).map(drop)
    }

    /// Runs a script; gives what it returns.
    ///
    /// # Errors
    /// When the script throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until the text of the page has these words.
    ///
    /// # Errors
    /// When the page does not have these words in time.
    pub fn shows(&self, words: &str) -> Result<()> {
        wait_for(&format!("the page shows {words:?}"), LONG, || {
            let text = self.run("return document.body.innerText")?;
            let text = text.as_str().unwrap_or_default();
            ensure!(text.contains(words), "{text}");
            Ok(Some(()))
        })
    }

    /// The element that a selector of CSS finds first.
    ///
    /// # Errors
    /// When there is none.
    pub fn element(&self, selector: &str) -> Result<String> {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}))?;
        let id = found.as_object().and_then(|all| all.values().next()?.as_str()).context("no element")?;
        Ok(id.to_owned())
    }

    /// Gives the window a size.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn resize(&self, (width, height): (u32, u32)) -> Result<()> {
        self.post("/window/rect", &json!({"width": width, "height": height})).map(drop)
    }

    /// Lets pages be seen as by who has asked the system for `light` or `dark`.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn prefers(&self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let media = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.post("/goog/cdp/execute", &media).map(drop)
    }

    /// Keeps a picture of the page beside the times of stories.
    ///
    /// # Errors
    /// When the picture cannot be taken or written.
    pub fn picture(&self, name: &str) -> Result<()> {
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
    ///
    /// # Errors
    /// What axe finds.
    pub fn is_for_everybody(&self, page: &str) -> Result<()> {
        self.run(&format!("{}; return 0", self.axe))?;
        let script =
            "const done = arguments[0]; axe.run().then(found => done(found.violations), error => done(String(error)))";
        let found = self.post("/execute/async", &json!({"script": script, "args": []}))?;
        let all = found.as_array().with_context(|| format!("axe did not run: {found}"))?;
        let told: Vec<_> = all.iter().map(|one| format!("{}: {}", one["id"], one["nodes"][0]["html"])).collect();
        ensure!(told.is_empty(), "axe finds on {page}:\n{}", told.join("\n"));
        Ok(())
    }

    /// Signs in at a site with a token, and waits until the page shows these words.
    ///
    /// # Errors
    /// When the page does not show them.
    pub fn sign_in(&self, url: &str, token: &str, words: &str) -> Result<()> {
        self.open(url)?;
        self.shows("Sign in")?;
        let field = self.element("#token")?;
        self.post(&format!("/element/{field}/value"), &json!({ "text": token }))?;
        let button = self.element("main button")?;
        self.post(&format!("/element/{button}/click"), &json!({}))?;
        self.shows(words)
    }

    /// Looks at the open page in every size and scheme.
    ///
    /// # Errors
    /// What axe finds, and when the page is wider than its window.
    pub fn looks(&self, name: &str, path: &str) -> Result<()> {
        for ((size, word), scheme) in [(WIDE, "wide"), (NARROW, "narrow")]
            .into_iter()
            .flat_map(|size| ["light", "dark"].map(|scheme| (size, scheme)))
        {
            self.resize(size)?;
            self.prefers(scheme)?;
            self.is_for_everybody(&format!("{path}, {word} and {scheme}"))?;
            self.picture(&format!("{name}-{word}-{scheme}"))?;
            let over =
                self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")?;
            ensure!(over.as_i64() <= Some(0), "{path} is {over} pixels too wide for {word}");
        }
        self.prefers("light")
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
