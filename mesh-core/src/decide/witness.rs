//! Who hears each step of a decision.

/// Hears why a decision went as it did.
pub trait Witness {
    /// Whether anybody listens. Where nobody does, a decision may take a shorter way to the same result.
    const LISTENS: bool;

    /// One sentence. It is only made where somebody listens.
    fn note(&mut self, sentence: impl FnOnce() -> String);
}

/// Hears nothing and costs nothing: the proxy's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Witness for Silent {
    const LISTENS: bool = false;

    fn note(&mut self, _sentence: impl FnOnce() -> String) {}
}

/// Remembers every sentence: the explain command's.
#[derive(Debug, Clone, Default)]
pub struct Remembering {
    /// The sentences so far.
    pub sentences: Vec<String>,
}

impl Witness for Remembering {
    const LISTENS: bool = true;

    fn note(&mut self, sentence: impl FnOnce() -> String) {
        self.sentences.push(sentence());
    }
}
