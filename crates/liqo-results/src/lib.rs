//! Results of jobs in an S3 store.
//!
//! Keeps true: a manifest exists only for a set of results that is stored as the manifest says; a path of a result leads to an
//! object below the prefix of its job and nowhere else; memory does not grow with the size of a file. Knows nothing of
//! Kubernetes: the controller writes a [`Location`] into a Secret, the mover reads it from files.

mod assume;
mod download;
pub mod keys;
mod location;
pub mod log;
mod manifest;
pub mod mover;
mod path;
mod probe;
mod store;

pub use self::{
    assume::{Assumed, Role, assume},
    download::{Download, DownloadError, partial_name},
    location::{BadLocation, Location},
    manifest::{BadManifest, Digest, File, Head, Manifest, Skipped},
    path::{BadPath, RESERVED, check, check_key},
    probe::{Unfit, Why},
    store::{CLOSED, Opened, Store, StoreError, Stored},
};
