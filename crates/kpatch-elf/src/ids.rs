//! What stands for a section or a symbol: its position in the table of the object.

/// Index into [`Object::sections`](crate::Object::sections).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub u32);

/// Index into [`Object::symbols`](crate::Object::symbols).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(pub u32);

impl SectionId {
    /// The position in the table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl SymbolId {
    /// The position in the table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
