//! How the processes of a workload are told from others on its host, and what is known of a process.
//!
//! Nothing is guessed: whoever cannot be told apart is nobody.

use super::name::Text;

/// Whose processes they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum User {
    /// By number.
    Id(u32),
    /// By name, which means what it means on the host.
    Name(Text),
}

/// How processes of a workload are recognised (annotations `mesh.io/user`, `mesh.io/cgroup`, `mesh.io/netns`). All that
/// is said must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Recognition {
    /// Their user.
    pub user: Option<User>,
    /// Their control group, as [`holds_group`] reads it.
    pub cgroup: Option<Text>,
    /// The network namespace that they live in, by its name on the host; `None` for the proxy's own.
    pub netns: Option<Text>,
}

impl Recognition {
    /// Whether it says nothing.
    pub fn is_silent(&self) -> bool {
        *self == Recognition::default()
    }

    /// Whether a process is one of these; `uid_of` knows users by name.
    pub fn admits(&self, process: &Process<'_>, uid_of: impl Fn(&str) -> Option<u32>) -> bool {
        let user = self.user.as_ref().is_none_or(|user| {
            let wanted = match user {
                User::Id(id) => Some(*id),
                User::Name(name) => uid_of(name),
            };
            wanted.is_some() && wanted == process.user
        });
        let cgroup = self.cgroup.as_deref();
        let cgroup =
            cgroup.is_none_or(|wanted| process.cgroup.is_some_and(|group| holds_group(wanted, group)));
        user && cgroup && self.netns.as_deref() == process.netns
    }

    /// How much it says: of two that admit the same process the one that says more is meant.
    pub fn weight(&self) -> (usize, usize) {
        let said = usize::from(self.user.is_some())
            + usize::from(self.cgroup.is_some())
            + usize::from(self.netns.is_some());
        (said, self.cgroup.as_ref().map_or(0, |cgroup| cgroup.len()))
    }
}

/// What is known of the process behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process<'a> {
    /// Its user.
    pub user: Option<u32>,
    /// The path of its control group below the root of the hierarchy.
    pub cgroup: Option<&'a str>,
    /// Name of its network namespace; `None` for the proxy's own.
    pub netns: Option<&'a str>,
}

/// Whether a control group lies at or below the one that is meant: a path from the root, or the bare name of a unit
/// (`reviews.service`). A unit is found below slices only: what a service or a user's own manager makes below itself
/// may have any name.
pub fn holds_group(wanted: &str, group: &str) -> bool {
    let wanted = wanted.trim_matches('/');
    let mut parts = group.trim_matches('/').split('/');
    if is_unit(wanted) {
        return parts.find(|part| *part == wanted || !part.ends_with(".slice")) == Some(wanted);
    }
    wanted.split('/').all(|part| parts.next() == Some(part))
}

/// Whether this is the name of a unit and no path: the manager gives units their place.
fn is_unit(name: &str) -> bool {
    const KINDS: [&str; 3] = [".service", ".scope", ".slice"];
    !name.contains('/') && KINDS.iter().any(|kind| name.ends_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let check = |wanted: &str, group: &str, expected: bool| {
            assert_eq!(holds_group(wanted, group), expected, "{wanted} {group}");
        };
        check("system.slice/reviews.service", "/system.slice/reviews.service", true);
        check("/system.slice/reviews.service/", "/system.slice/reviews.service/worker", true);
        check("system.slice/reviews.service", "/system.slice/reviews.service2", false);
        check("system.slice/reviews.service", "/system.slice", false);
        check("system.slice/reviews.service", "/x/system.slice/reviews.service", false);
        check("mesh/a", "/mesh/a", true);
        check("mesh", "/mesh/a", true);
        check("reviews.service", "/system.slice/reviews.service", true);
        check("reviews.service", "/system.slice/system-reviews.slice/reviews.service/x", true);
        check("reviews.service", "/reviews.service", true);
        check("machine.slice", "/machine.slice/a.scope", true);
        // A user may call its own units what it likes.
        check("reviews.service", "/user.slice/user-1.slice/user@1.service/app.slice/reviews.service", false);
        check("reviews.service", "/system.slice/evil.service/reviews.service", false);
        check("reviews.service", "/", false);
    }

    #[test]
    fn all_that_is_said_must_hold() {
        let uid_of = |name: &str| (name == "reviews").then_some(7);
        let said = |user: Option<User>, cgroup: Option<&str>, netns: Option<&str>| Recognition {
            user,
            cgroup: cgroup.map(Text::from),
            netns: netns.map(Text::from),
        };
        let process = Process { user: Some(7), cgroup: Some("/a/b"), netns: None };
        let check = |recognition: &Recognition, process: &Process<'_>, expected: bool| {
            assert_eq!(recognition.admits(process, uid_of), expected, "{recognition:?} {process:?}");
        };
        check(&said(Some(User::Id(7)), None, None), &process, true);
        check(&said(Some(User::Name("reviews".into())), Some("a"), None), &process, true);
        check(&said(Some(User::Name("gone".into())), None, None), &Process::default(), false);
        check(&said(Some(User::Id(7)), Some("b"), None), &process, false);
        check(&said(Some(User::Id(8)), Some("a"), None), &process, false);
        check(&said(Some(User::Id(7)), None, Some("n")), &process, false);
        check(&said(Some(User::Id(7)), None, None), &Process { netns: Some("n"), ..process }, false);
        check(&said(None, None, Some("n")), &Process { netns: Some("n"), ..Process::default() }, true);
        check(&said(Some(User::Id(0)), None, None), &Process::default(), false);
    }
}
