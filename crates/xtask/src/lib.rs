//! What is generated, as values: the binary writes them, tests read them.

pub mod generated;
pub mod rbac;
pub mod yaml;
