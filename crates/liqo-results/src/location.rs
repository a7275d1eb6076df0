//! Where the results of one job are, and with which credentials.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::path::{BadPath, check_key};

/// Longest file of a location, in bytes: a bundle of certificates.
const LONGEST_FILE: u64 = 256 * 1024;
/// The region when none is given, as most stores that are not Amazon's expect.
const REGION: &str = "us-east-1";

const ENDPOINT: &str = "endpoint";
const REGION_FILE: &str = "region";
const BUCKET: &str = "bucket";
const PREFIX: &str = "prefix";
const ACCESS_KEY_ID: &str = "accessKeyId";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";
const SESSION_TOKEN: &str = "sessionToken";
const CA: &str = "ca.crt";
const ADDRESSING: &str = "addressing";
/// The value of [`ADDRESSING`] of a store whose buckets are names of hosts.
const VIRTUAL_HOST: &str = "virtual-host";
/// The files of a location.
const FILES: [&str; 9] =
    [ENDPOINT, REGION_FILE, BUCKET, PREFIX, ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN, CA, ADDRESSING];

/// A place in an S3 store. [`Location::files`] writes what [`Location::read`] reads: the keys of a Secret, and the files of a
/// directory where the Secret is mounted.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// URL of the store, `http` or `https`.
    pub endpoint: String,
    /// Requests name the bucket in the name of the host, and not in their path.
    pub virtual_host: bool,
    /// Region that requests are signed for.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// What all keys of this job begin with, without a slash at its end.
    pub prefix: String,
    /// Access key identifier.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Token of temporary credentials.
    pub session_token: Option<String>,
    /// Certificates, in PEM, that the store is verified with; without any, those of the system.
    pub ca: Option<String>,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, region, bucket, prefix, access_key_id, .. } = self;
        let mut shown = f.debug_struct("Location");
        shown.field("endpoint", endpoint).field("region", region).field("bucket", bucket).field("prefix", prefix);
        shown.field("access_key_id", access_key_id).finish_non_exhaustive()
    }
}

/// Why there is no location.
#[derive(Debug, thiserror::Error)]
pub enum BadLocation {
    /// A file cannot be read.
    #[error("reading {file:?} of the location")]
    Read {
        /// Its name.
        file: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A file has to be there and not empty.
    #[error("the location has no {0:?}")]
    Missing(&'static str),
    /// The endpoint is no URL.
    #[error("endpoint {0:?} is no URL that begins with http:// or https://")]
    Endpoint(String),
    /// There is no such form of requests.
    #[error("addressing {0:?} is neither path nor {VIRTUAL_HOST}")]
    Addressing(String),
    /// The prefix is no path.
    #[error("prefix {0:?}: {1}")]
    Prefix(String, #[source] BadPath),
}

impl Location {
    /// Reads a directory with one file for each value.
    ///
    /// # Errors
    /// When a file that has to be there is missing, cannot be read, or makes no sense.
    pub fn read(directory: &Path) -> Result<Self, BadLocation> {
        let mut files = BTreeMap::new();
        for file in FILES {
            let mut text = String::new();
            match File::open(directory.join(file)).and_then(|open| open.take(LONGEST_FILE).read_to_string(&mut text)) {
                Ok(_) => drop(files.insert(file.to_owned(), text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(BadLocation::Read { file, source }),
            }
        }
        Self::from_files(&files)
    }

    /// The location that these files describe, see [`Location::files`]. Space around a value does not count.
    ///
    /// # Errors
    /// When a file that has to be there is missing, or makes no sense.
    pub fn from_files(files: &BTreeMap<String, String>) -> Result<Self, BadLocation> {
        let optional = |file: &str| files.get(file).map(|text| text.trim()).filter(|text| !text.is_empty());
        let needed = |file| optional(file).map(str::to_owned).ok_or(BadLocation::Missing(file));
        let endpoint = needed(ENDPOINT)?;
        let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
        if host.is_none_or(str::is_empty) || endpoint.parse::<http::Uri>().is_err() {
            return Err(BadLocation::Endpoint(endpoint));
        }
        let virtual_host = match optional(ADDRESSING).unwrap_or("path") {
            "path" => false,
            VIRTUAL_HOST => true,
            other => return Err(BadLocation::Addressing(other.to_owned())),
        };
        let prefix = needed(PREFIX)?;
        check_key(&prefix).map_err(|why| BadLocation::Prefix(prefix.clone(), why))?;
        Ok(Self {
            endpoint,
            virtual_host,
            region: optional(REGION_FILE).unwrap_or(REGION).to_owned(),
            bucket: needed(BUCKET)?,
            prefix,
            access_key_id: needed(ACCESS_KEY_ID)?,
            secret_access_key: needed(SECRET_ACCESS_KEY)?,
            session_token: optional(SESSION_TOKEN).map(str::to_owned),
            ca: optional(CA).map(str::to_owned),
        })
    }

    /// The location as files: what a Secret for the mover contains.
    pub fn files(&self) -> BTreeMap<String, String> {
        let always = [
            (ENDPOINT, &self.endpoint),
            (REGION_FILE, &self.region),
            (BUCKET, &self.bucket),
            (PREFIX, &self.prefix),
            (ACCESS_KEY_ID, &self.access_key_id),
            (SECRET_ACCESS_KEY, &self.secret_access_key),
        ];
        let optional = [(SESSION_TOKEN, &self.session_token), (CA, &self.ca)];
        let optional = optional.into_iter().filter_map(|(file, text)| Some((file, text.as_ref()?)));
        let texts = always.into_iter().chain(optional).map(|(file, text)| (file.to_owned(), text.clone()));
        let addressing = self.virtual_host.then(|| (ADDRESSING.to_owned(), VIRTUAL_HOST.to_owned()));
        texts.chain(addressing).collect()
    }

    /// Whether requests are sent without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.endpoint.starts_with("http://")
    }

    /// What requests are sent to: the endpoint, with the bucket in the name of the host where the store wants it there.
    pub(crate) fn host(&self) -> String {
        let endpoint = self.endpoint.trim_end_matches('/');
        match endpoint.split_once("://") {
            Some((scheme, host)) if self.virtual_host => format!("{scheme}://{}.{host}", self.bucket),
            _ => endpoint.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> Location {
        Location {
            endpoint: "http://liqo-store.liqo:9000".into(),
            virtual_host: false,
            region: REGION.into(),
            bucket: "liqo-jobs".into(),
            prefix: "team-a/uid".into(),
            access_key_id: "id".into(),
            secret_access_key: "hush".into(),
            session_token: None,
            ca: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let ca = Some("PEM".into());
        let all = Location { session_token: Some("token".into()), ca, virtual_host: true, ..location() };
        for location in [location(), all] {
            assert_eq!(Location::from_files(&location.files()).unwrap(), location);
            assert!(!format!("{location:?}").contains("hush"));
            let directory = std::env::temp_dir().join(format!("liqo-location-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            for (file, text) in location.files() {
                std::fs::write(directory.join(file), text + "\n").unwrap();
            }
            assert_eq!(Location::read(&directory).unwrap(), location);
            std::fs::remove_dir_all(directory).unwrap();
        }
    }

    #[test]
    fn the_bucket_is_in_the_path_or_in_the_name_of_the_host() {
        let host = |endpoint: &str, virtual_host| {
            Location { endpoint: endpoint.to_owned(), virtual_host, ..location() }.host()
        };
        assert_eq!(host("https://s3.example.com:9000/", true), "https://liqo-jobs.s3.example.com:9000");
        assert_eq!(host("http://liqo-store:9000", false), "http://liqo-store:9000");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (file, text, said) in [
            (ENDPOINT, "", r#"has no "endpoint""#),
            (ENDPOINT, "liqo-store:9000", "is no URL"),
            (ENDPOINT, "file:///etc", "is no URL"),
            (ENDPOINT, "http://", "is no URL"),
            (ENDPOINT, "http://a b", "is no URL"),
            (BUCKET, " \n", r#"has no "bucket""#),
            (PREFIX, "", r#"has no "prefix""#),
            (PREFIX, "a/../b", "`..`"),
            (PREFIX, "a/", "empty component"),
            (SECRET_ACCESS_KEY, "", r#"has no "secretAccessKey""#),
            (ADDRESSING, "dns", "neither path nor"),
        ] {
            let mut files = location().files();
            files.insert(file.into(), text.into());
            let error = Location::from_files(&files).unwrap_err().to_string();
            assert!(error.contains(said), "{file} {text:?}: {error}");
        }
        let mut files = location().files();
        files.remove(REGION_FILE);
        assert_eq!(Location::from_files(&files).unwrap(), location());
        assert!(matches!(Location::read(Path::new("/nowhere")), Err(BadLocation::Missing(ENDPOINT))));
    }
}
