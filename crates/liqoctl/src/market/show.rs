//! `liqoctl market list`, and tables of what the broker says.

use anyhow::Context;
use serde_json::Value;

use super::access::Site;
use crate::{
    out::Out,
    table::{Form, ShowArgs, table},
};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ListArgs {
    /// List what this cluster has reserved
    #[arg(long, conflicts_with_all = ["region", "label", "fresh"])]
    reservations: bool,
    /// Only providers of this region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Only providers with this label; several: all of them
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Only providers that the broker heard of lately
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// A column: its title, and the path of its value.
type Column = (&'static str, &'static str);

/// The first of these columns are shown without `-o wide`.
const PROVIDERS: (&[Column], usize) = (
    &[
        ("PROVIDER", "/clusterID"),
        ("NAME", "/clusterName"),
        ("REGION", "/region"),
        ("CPU", "/free/cpu"),
        ("MEMORY", "/free/memory"),
        ("FRESH", "/fresh"),
        ("OFFERED CPU", "/offered/cpu"),
        ("OFFERED MEMORY", "/offered/memory"),
        ("LARGEST CPU", "/largestAllocation/cpu"),
        ("LARGEST MEMORY", "/largestAllocation/memory"),
        ("UPTIME 24H", "/uptime/24h"),
        ("CARBON", "/carbonGrams"),
        ("CORDONED", "/cordoned"),
        ("AGE", "/ageSeconds"),
    ],
    6,
);
const RESERVATIONS: (&[Column], usize) = (
    &[
        ("NAME", "/name"),
        ("PHASE", "/phase"),
        ("PROVIDER", "/provider"),
        ("CPU", "/resources/cpu"),
        ("MEMORY", "/resources/memory"),
        ("EXPIRES", "/expiresAt"),
        ("UID", "/uid"),
        ("REASON", "/reason"),
        ("MESSAGE", "/message"),
    ],
    6,
);

/// `liqoctl market list`
pub(super) async fn list(site: &Site, args: ListArgs) -> anyhow::Result<()> {
    let ListArgs { reservations, region, label, fresh, show: ShowArgs { output } } = args;
    let format = output.and_then(Form::for_programs);
    let out = Out::new(format.is_some());
    let (all, columns, none) = if reservations {
        let all = site.broker.held().await.context("listing reservations")?;
        (all, RESERVATIONS, "this cluster has reserved nothing; `liqoctl market reserve` does")
    } else {
        let mut filter = String::new();
        let mut add = |key: &str, value: &str| filter += &format!("&{key}={}", encoded(value));
        region.iter().for_each(|region| add("region", region));
        if !label.is_empty() {
            add("labels", &label.join(","));
        }
        if fresh {
            add("fresh", "true");
        }
        let all = site.broker.catalogue(&filter).await.context("listing providers")?;
        (all, PROVIDERS, "no provider is listed; without filters `liqoctl market list` shows every one")
    };
    if let Some(format) = format {
        return out.value(&all, format);
    }
    if all.is_empty() {
        out.info(none);
        return Ok(());
    }
    out.data(&objects(&all, columns, output == Some(Form::Wide)))
}

/// A value in a query.
fn encoded(text: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Objects, one in a line.
fn objects(all: &[Value], (columns, narrow): (&[Column], usize), is_wide: bool) -> String {
    let columns = &columns[..if is_wide { columns.len() } else { narrow }];
    let row = |object: &Value| columns.iter().map(|(_, path)| text(object.pointer(path))).collect();
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    table(std::iter::once(titles).chain(all.iter().map(row)).collect())
}

/// A value as one cell.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        // What others say is shown without what a terminal would act on.
        Some(Value::String(text)) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_as_many_columns_as_were_asked_for() {
        let all = [json!({"name": "a", "phase": "Granted", "resources": {"cpu": "2"}, "uid": "u\u{1b}[31m"})];
        let narrow = objects(&all, RESERVATIONS, false);
        assert_eq!(narrow.lines().next(), Some("NAME   PHASE     PROVIDER   CPU   MEMORY   EXPIRES"));
        assert_eq!(narrow.lines().nth(1), Some("a      Granted              2"));
        let wide = objects(&all, RESERVATIONS, true);
        assert!(wide.contains("UID") && !wide.contains('\u{1b}'), "{wide}");
    }

    #[test]
    fn a_filter_cannot_add_parameters() {
        assert_eq!(encoded("eu&limit=1"), "eu%26limit%3D1");
        assert_eq!(encoded("tier=gold,ü"), "tier%3Dgold%2C%C3%BC");
    }
}
