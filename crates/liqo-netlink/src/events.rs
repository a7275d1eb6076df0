//! Notice of changes made by others.

use crate::error::Result;

/// Notice that something of a realm may have been changed by somebody else.
#[derive(Debug)]
pub struct Events {}

impl Events {
    /// Waits until something may have changed. What happens between two calls is told by the next one, once.
    pub async fn changed(&mut self) -> Result<()> {
        std::future::pending().await
    }
}
