//! Envoy's response flags of one exchange, in the order in which they were set.

use std::fmt;

/// Short and long names. Places are for the life of the process only, so new ones may stand anywhere.
const NAMES: [(&str, &str); 30] = [
    ("NR", "NoRouteFound"),
    ("NC", "NoClusterFound"),
    ("UH", "NoHealthyUpstream"),
    ("UF", "UpstreamConnectionFailure"),
    ("UC", "UpstreamConnectionTermination"),
    ("UR", "UpstreamRemoteReset"),
    ("UT", "UpstreamRequestTimeout"),
    ("UO", "UpstreamOverflow"),
    ("UPE", "UpstreamProtocolError"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("DC", "DownstreamConnectionTermination"),
    ("DI", "DelayInjected"),
    ("FI", "FaultInjected"),
    ("DPE", "DownstreamProtocolError"),
    ("LR", "LocalReset"),
    ("SI", "StreamIdleTimeout"),
    ("DT", "DurationTimeout"),
    ("OM", "OverloadManagerTerminated"),
    ("RL", "RateLimited"),
    ("UAEX", "UnauthorizedExternalService"),
    ("RLSE", "RateLimitServiceError"),
    ("IH", "InvalidEnvoyRequestHeaders"),
    ("UMSDR", "UpstreamMaxStreamDurationReached"),
    ("LH", "FailedLocalHealthCheck"),
    ("RFCF", "ResponseFromCacheFilter"),
    ("NFCF", "NoFilterConfigFound"),
    ("DF", "DnsResolutionFailed"),
    ("DO", "DropOverload"),
    ("DR", "DownstreamRemoteReset"),
    ("UDO", "UnconditionalDropOverload"),
];

/// Up to four flags in one word, so that it is compared and hashed like a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// The one flag of that name; none for `-` and what is not known.
    pub fn of(name: &str) -> Flags {
        let mut flags = Flags::NONE;
        flags.push(name);
        flags
    }

    /// Adds a flag behind those that are set. A fifth one is left out.
    pub fn push(&mut self, name: &str) {
        let Some(index) = NAMES.iter().position(|(known, _)| *known == name) else { return };
        for slot in 0..4 {
            let shift = slot * 8;
            let set = (self.0 >> shift) & 0xff;
            if set == index as u32 + 1 {
                return;
            }
            if set == 0 {
                self.0 |= (index as u32 + 1) << shift;
                return;
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a flag is set.
    pub fn contains(self, name: &str) -> bool {
        self.names().any(|set| set == name)
    }

    /// Their names, in the order in which they were set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.set().map(|(short, _)| short)
    }

    /// Their long names.
    pub fn long_names(self) -> impl Iterator<Item = &'static str> {
        self.set().map(|(_, long)| long)
    }

    fn set(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let indices = (0..4).map(move |slot| ((self.0 >> (slot * 8)) & 0xff) as usize);
        indices.take_while(|index| *index > 0).filter_map(|index| NAMES.get(index - 1).copied())
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, name) in self.names().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keep_their_order_and_count_once() {
        let check = |set: &[&str], expected: &str| {
            let mut flags = Flags::NONE;
            set.iter().for_each(|name| flags.push(name));
            assert_eq!(flags.to_string(), expected);
        };
        check(&[], "-");
        check(&["-"], "-");
        check(&["DI", "FI"], "DI,FI");
        check(&["URX", "UF", "URX"], "URX,UF");
        check(&["NR", "NC", "UH", "UF", "UC"], "NR,NC,UH,UF");
    }

    /// Every flag of Envoy, or one that is set would be lost without a word.
    #[test]
    fn every_flag_is_known() {
        for name in [
            "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
            "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
            "UDO",
        ] {
            assert_eq!(Flags::of(name).to_string(), name);
            assert_eq!(Flags::of(name).long_names().count(), 1);
        }
    }
}
