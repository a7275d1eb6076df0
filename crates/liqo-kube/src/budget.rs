//! How much of one cluster may be kept in memory.

use std::{
    mem::size_of,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

/// A budget of objects and bytes in memory. A list counts while it is read, in addition to the objects that it will replace.
#[derive(Debug)]
pub(crate) struct Budget {
    most: Size,
    kept: Mutex<Size>,
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) objects: usize,
    pub(crate) bytes: usize,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the other cluster shows more than is kept of it ({} objects, {} MiB)", .0.objects, .0.bytes / (1024 * 1024)
)]
pub(crate) struct TooMuch(Size);

impl Default for Budget {
    /// No bounds: for the own cluster.
    fn default() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }
}

impl Budget {
    pub(crate) fn new(objects: usize, bytes: usize) -> Self {
        Self { most: Size { objects, bytes }, kept: Mutex::default() }
    }

    /// Takes room for one object of `bytes` bytes; dropping the returned value gives the room back.
    pub(crate) fn room(self: &Arc<Self>, bytes: usize) -> Result<Room, TooMuch> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Size { objects: kept.objects.saturating_add(1), bytes: kept.bytes.saturating_add(bytes) };
        if new.objects > self.most.objects || new.bytes > self.most.bytes {
            return Err(TooMuch(self.most));
        }
        *kept = new;
        Ok(Room { budget: Arc::clone(self), bytes })
    }
}

/// Room taken for an object.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut kept = self.budget.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Size { objects: kept.objects.saturating_sub(1), bytes: kept.bytes.saturating_sub(self.bytes) };
    }
}

/// About how many bytes a value takes in memory.
pub(crate) fn weight(value: &Value) -> usize {
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| size_of::<String>() + key.len() + weight(value)).sum()
        }
    };
    size_of::<Value>() + inner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_until_there_is_none_and_again_when_some_is_given_back() {
        let budget = Arc::new(Budget::new(2, 100));
        let one = budget.room(60).unwrap();
        assert!(budget.room(60).unwrap_err().to_string().contains("2 objects"), "bytes");
        let two = budget.room(40).unwrap();
        assert!(budget.room(0).is_err(), "objects");
        drop((one, two));
        assert!(budget.room(100).is_ok());
        assert!(Arc::new(Budget::default()).room(usize::MAX).is_ok());
    }
}
