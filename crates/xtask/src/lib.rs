//! What is generated, as values: the binary writes them, tests read them.

pub mod door;
pub mod generated;
pub mod rbac;
pub mod rights;
pub mod yaml;
