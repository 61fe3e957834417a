//! Tags of spans that are formats of the access log, each read once.

use std::cell::RefCell;

use mesh_core::telemetry::format::Template;
use mesh_core::vocab::name::Text;

use crate::telemetry::asked::Asked;
use crate::telemetry::entry::Entry;
use crate::telemetry::line::Clock;
use crate::telemetry::log::render;
use crate::telemetry::log::value::{Here, Told};
use crate::telemetry::metrics::SeriesCache;

/// So many formats are known at a time.
const MOST: usize = 64;

/// The formats that a data thread has met.
#[derive(Debug)]
pub(super) struct Formats {
    here: Here,
    clock: Clock,
    known: RefCell<Vec<(Text, Option<Template>)>>,
}

impl Formats {
    /// On a host of that name.
    pub(super) fn on(host: Text) -> Formats {
        Formats { here: Here::on(host), clock: Clock::default(), known: RefCell::default() }
    }

    /// What a format says of an exchange.
    pub(super) fn render(&self, format: &Text, entry: &Entry<'_>, series: &SeriesCache) -> String {
        let mut known = self.known.borrow_mut();
        if !known.iter().any(|(text, _)| text == format) {
            if known.len() >= MOST {
                known.clear();
            }
            // What cannot be read was refused where it was declared.
            known.push((format.clone(), Template::parse(format).ok()));
        }
        let template = known.iter().find(|(text, _)| text == format).and_then(|(_, read)| read.as_ref());
        let Some(template) = template else { return String::new() };
        let asked = Asked::new(entry, series);
        let told = Told { entry, asked: &asked, clock: &self.clock, here: &self.here };
        let mut out = Vec::new();
        render::text(template, &told, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}
