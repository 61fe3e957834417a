//! Whether the rules stand by which the kernel hands connections to this proxy.

/// What is known of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interception {
    /// None are wanted.
    #[default]
    Off,
    /// They are as they were installed.
    Installed,
    /// Another tool has removed them, or nobody has installed them.
    Missing,
    /// Another tool has changed them.
    Altered,
}

impl Interception {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Interception::Off => "off",
            Interception::Installed => "installed",
            Interception::Missing => "missing",
            Interception::Altered => "altered",
        }
    }

    /// Whether rules are wanted that do not stand.
    pub fn is_lost(self) -> bool {
        matches!(self, Interception::Missing | Interception::Altered)
    }
}
