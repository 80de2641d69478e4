//! From a name to the types that carry it. Chained, so that a blob full of equal names costs no more to index.

use super::raw::{Kind, Raw};

pub(super) struct Index {
    /// First type of each bucket, 0 for none. The length is a power of two.
    heads: Vec<u32>,
    /// The next type of the same bucket, at `id`.
    next: Vec<u32>,
}

impl Index {
    pub fn new(raw: &Raw<'_>) -> Index {
        let count = raw.count();
        let mut index =
            Index { heads: vec![0; (count as usize).next_power_of_two()], next: vec![0; count as usize + 1] };
        // Backwards, so that a chain runs from the lowest id up.
        for id in (1..=count).rev() {
            let Some(found) = raw.get(id) else { continue };
            if !indexed(found.kind) {
                continue;
            }
            let name = raw.name(found.name);
            if name.is_empty() {
                continue;
            }
            let bucket = index.bucket(name);
            index.next[id as usize] = index.heads[bucket];
            index.heads[bucket] = id;
        }
        index
    }

    /// Ids of the types that may be called `name`: the caller compares.
    pub fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let mut id = self.heads[self.bucket(name)];
        std::iter::from_fn(move || {
            let found = id;
            id = *self.next.get(found as usize)?;
            (found != 0).then_some(found)
        })
    }

    /// FNV-1a.
    fn bucket(&self, name: &[u8]) -> usize {
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        (hash ^ (hash >> 15)) as usize & (self.heads.len() - 1)
    }
}

fn indexed(kind: Kind) -> bool {
    matches!(kind, Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Typedef | Kind::Func)
}
