//! Envoy's response flags of one exchange, in the order in which they were set.

use std::fmt;

const NAMES: [&str; 19] = [
    "NR", "NC", "UH", "UF", "UC", "UR", "UT", "UO", "UPE", "URX", "DC", "DI", "FI", "DPE", "LR", "SI", "DT",
    "OM", "RL",
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
        let Some(index) = NAMES.iter().position(|known| *known == name) else { return };
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

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let indices = (0..4).map(move |slot| ((self.0 >> (slot * 8)) & 0xff) as usize);
        indices.take_while(|index| *index > 0).map(|index| NAMES[index - 1])
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
}
