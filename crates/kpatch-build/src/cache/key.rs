//! The names of cache entries.
//!
//! A wrong key would silently hand out somebody else's object, so every field of a key is labelled and has its length
//! before it.

/// Identifies an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(blake3::Hash);

impl Key {
    /// As lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.to_hex().to_string()
    }
}

/// Makes a [`Key`] of labelled fields. The same fields in the same order give the same key; nothing else does.
#[derive(Clone, Debug)]
pub struct KeyBuilder(blake3::Hasher);

impl KeyBuilder {
    /// A key of that kind. Kinds never share an entry.
    pub fn new(kind: &str) -> KeyBuilder {
        let mut builder = KeyBuilder(blake3::Hasher::new());
        builder.raw(env!("CARGO_PKG_VERSION").as_bytes());
        builder.raw(kind.as_bytes());
        builder
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, label: &str, value: impl AsRef<[u8]>) -> KeyBuilder {
        self.raw(label.as_bytes());
        self.raw(value.as_ref());
        self
    }

    /// Adds a list; its length counts too.
    #[must_use]
    pub fn list<V: AsRef<[u8]>>(mut self, label: &str, values: impl IntoIterator<Item = V>) -> KeyBuilder {
        self.raw(label.as_bytes());
        let mut count = 0u64;
        for value in values {
            self.0.update(b"+");
            self.raw(value.as_ref());
            count += 1;
        }
        self.0.update(b"=");
        self.raw(&count.to_le_bytes());
        self
    }

    /// Adds what another key stands for.
    #[must_use]
    pub fn key(self, label: &str, key: Key) -> KeyBuilder {
        self.field(label, key.0.as_bytes())
    }

    /// The key.
    pub fn finish(&self) -> Key {
        Key(self.0.finalize())
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let keys = [
            KeyBuilder::new("a").field("x", "yz").finish(),
            KeyBuilder::new("a").field("xy", "z").finish(),
            KeyBuilder::new("ax").field("", "yz").finish(),
            KeyBuilder::new("a").field("x", "y").field("z", "").finish(),
            KeyBuilder::new("a").list("x", ["yz"]).finish(),
            KeyBuilder::new("a").list("x", ["y", "z"]).finish(),
            KeyBuilder::new("a").list("x", ["y", "z", ""]).finish(),
            KeyBuilder::new("a").list("x", [""; 0]).finish(),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(key), "key {at} is not alone");
        }
        let again = || KeyBuilder::new("a").field("x", "yz").finish();
        assert_eq!(again(), keys[0]);
    }
}
