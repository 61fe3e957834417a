//! Name to service.

use std::borrow::Cow;

use super::Index;
use crate::vocab::name::Text;

/// Every form of every service's name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    full: Index<Text, usize>,
    hosts: Index<Text, usize>,
    short: Index<Text, Vec<(Text, usize)>>,
}

impl Names {
    /// Adds a service. Where two claim one name, the one added first keeps it.
    pub(crate) fn add(&mut self, index: usize, service: &crate::snapshot::service::Service) {
        self.hosts.insert(service.host.clone(), index);
        for name in service.names.iter().chain([&service.host]) {
            self.full.entry(name.clone()).or_insert(index);
        }
        if let Some(short) = &service.short_name {
            self.short.entry(short.clone()).or_default().push((service.namespace.clone(), index));
        }
        for address in &service.addresses {
            self.full.entry(address.to_string().into()).or_insert(index);
        }
    }

    /// The service whose host this is exactly.
    pub(crate) fn host(&self, host: &str) -> Option<usize> {
        self.hosts.get(host).copied()
    }

    /// The service that a name means for callers of a namespace.
    pub(crate) fn service(&self, name: &str, namespace: Option<&str>) -> Option<usize> {
        let name = lower(name.strip_suffix('.').unwrap_or(name));
        if !name.contains('.') {
            let namespace = namespace?;
            let in_namespaces = self.short.get(&*name)?;
            return in_namespaces.iter().find(|(of, _)| &**of == namespace).map(|(_, index)| *index);
        }
        self.full.get(&*name).copied()
    }
}

/// The text in lower case, borrowed where it already is.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
