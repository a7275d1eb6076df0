//! Files in a form (`multipart/form-data`, RFC 7578).
//!
//! Keeps true: nothing that is sent becomes a file of this process; a name of a file is a text that is told back and never a path; a
//! file is bounded before anybody reads it.

use axum::body::Bytes;
use futures::stream;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use liqo_front::problem::Problem;
use multer::{Constraints, Multipart, SizeLimit};

use super::dotenv::{self, Variables};

/// Longest file, bytes: a ConfigMap holds no more.
pub(super) const LONGEST: usize = 1024 * 1024;
/// Longest form, bytes: two files and what is around them.
pub(super) const LONGEST_FORM: usize = 2 * LONGEST + 64 * 1024;
/// Parts of a form, at most.
const MOST: usize = 16;

/// One file of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Name of the field.
    pub(super) field: String,
    /// Name that the caller gave the file.
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// The files of a form; none where the body is no form.
///
/// # Errors
/// 413 when a file has more than [`LONGEST`] bytes, 400 when the form is none.
pub(super) async fn files(headers: &HeaderMap, body: Bytes) -> Result<Vec<File>, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("multipart/form-data") {
        return Ok(Vec::new());
    }
    let boundary = multer::parse_boundary(kind).map_err(|error| refused(&error))?;
    let longest = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    let limits = Constraints::new().size_limit(SizeLimit::new().per_field(longest));
    let pieces = stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut form = Multipart::with_constraints(pieces, boundary, limits);
    let mut files = Vec::new();
    while let Some(part) = form.next_field().await.map_err(|error| refused(&error))? {
        if files.len() == MOST {
            return Err(Problem::new(StatusCode::BAD_REQUEST, format!("the form has more than {MOST} parts")));
        }
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (field, name) = (text(part.name()), text(part.file_name()));
        files.push(File { field, name, bytes: part.bytes().await.map_err(|error| refused(&error))? });
    }
    Ok(files)
}

fn refused(error: &multer::Error) -> Problem {
    match error {
        multer::Error::FieldSizeExceeded { field_name, .. } => {
            let field = field_name.as_deref().unwrap_or_default();
            let why = format!("the file {field:?} has more than {LONGEST} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
        }
        other => Problem::new(StatusCode::BAD_REQUEST, format!("the form cannot be read: {other}")),
    }
}

/// The variables of the file in this field; nothing where there is no such file.
///
/// # Errors
/// 400 with the line that breaks a rule.
pub(super) fn variables(files: &[File], field: &str) -> Result<Option<Variables>, Problem> {
    let found = files.iter().find(|file| file.field == field);
    let wrong = |error| Problem::new(StatusCode::BAD_REQUEST, format!("{field} cannot be read: {error}"));
    found.map(|file| dotenv::read(&file.bytes)).transpose().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const FORM: &str = "multipart/form-data; boundary=\"x-y\"";

    fn form(kind: &str, body: &[u8]) -> Result<Vec<File>, Problem> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
        files(&headers, Bytes::copy_from_slice(body)).now_or_never().expect("nothing is waited for")
    }

    fn part(field: &str, name: &str, content: &str) -> String {
        format!("--x-y\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n{content}\r\n")
    }

    #[test]
    fn a_form_is_its_files_and_a_name_is_no_path() {
        let body =
            format!("{}{}--x-y--\r\n", part("config_data", "../../etc/cron.d/x", "GPU=true"), part("other", "b", ""));
        let files = form(FORM, body.as_bytes()).unwrap();
        assert_eq!(files[0].name, "../../etc/cron.d/x");
        assert_eq!(variables(&files, "config_data").unwrap().unwrap().get("GPU"), Some("true"));
        assert_eq!((variables(&files, "env_file"), files.len()), (Ok(None), 2));
        assert_eq!(form("application/json", b"{}"), Ok(vec![]));
    }

    #[test]
    fn what_is_too_long_or_no_form_is_refused() {
        let code =
            |kind: &str, body: &str| form(kind, body.as_bytes()).map_err(|problem| problem.status).map(|all| all.len());
        let sized = |bytes: usize| format!("{}--x-y--\r\n", part("env_file", "e", &"x".repeat(bytes)));
        assert_eq!(code(FORM, &sized(LONGEST)), Ok(1));
        assert_eq!(code(FORM, &sized(LONGEST + 1)), Err(413));
        let many = (0..=MOST).map(|_| part("a", "b", "c")).collect::<String>();
        for (kind, body) in [(FORM, "--x-y"), (FORM, ""), ("multipart/form-data", ""), (FORM, many.as_str())] {
            assert_eq!(code(kind, body), Err(400), "{kind} {body:.20}");
        }
    }

    /// A form that is read has few parts, none longer than allowed and none longer than the form.
    #[test]
    fn fuzz_form() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "form", |bytes| {
            let Ok(files) = form(FORM, bytes) else { return };
            assert!(files.len() <= MOST);
            assert!(files.iter().map(|file| file.bytes.len()).sum::<usize>() <= bytes.len());
        });
    }
}
