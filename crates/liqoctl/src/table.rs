//! Lists of objects, for people and for programs.

use crate::out::Format;

/// The flag that says how objects are printed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Print for programs, or with more columns
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Form>,
}

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
    /// A table with all columns.
    Wide,
}

impl Form {
    /// The form for programs; nothing: for people.
    pub(crate) fn for_programs(self) -> Option<Format> {
        match self {
            Self::Json => Some(Format::Json),
            Self::Yaml => Some(Format::Yaml),
            Self::Wide => None,
        }
    }
}

/// Rows of cells, each column as wide as its widest cell.
pub(crate) fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
