//! Region, zone and subzone.

use std::fmt;

use super::name::Text;

/// Where a workload runs. Empty parts are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: Option<Text>,
    /// Zone in the region.
    pub zone: Option<Text>,
    /// Subzone in the zone.
    pub subzone: Option<Text>,
}

impl Locality {
    /// Parses Istio's `region/zone/subzone`; missing or empty parts are unknown.
    pub fn parse(text: &str) -> Locality {
        let mut parts = text.splitn(3, '/').map(|part| (!part.is_empty()).then(|| Text::from(part)));
        let mut next = || parts.next().flatten();
        Locality { region: next(), zone: next(), subzone: next() }
    }

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.region.is_none()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.region, &self.zone, &self.subzone];
        let known = parts.iter().rposition(|part| part.is_some()).map_or(0, |last| last + 1);
        for (index, part) in parts[..known].iter().enumerate() {
            let slash = if index == 0 { "" } else { "/" };
            write!(f, "{slash}{}", part.as_deref().unwrap_or(""))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["", "r", "r/z", "r/z/s"] {
            assert_eq!(Locality::parse(text).to_string(), text);
        }
    }
}
