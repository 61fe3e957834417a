//! Users of this host by name, as its name service knows them.

/// The number of a user; `None` where there is none of that name. May ask other hosts, and take a while.
pub fn id_of(name: &str) -> Option<u32> {
    match nix::unistd::User::from_name(name) {
        Ok(found) => found.map(|user| user.uid.as_raw()),
        Err(error) => {
            tracing::warn!(name, %error, "a user cannot be looked up");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_host() {
        assert_eq!(id_of("root"), Some(0));
        assert_eq!(id_of("no-such-user-here"), None);
    }
}
