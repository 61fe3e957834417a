//! What is measured, by time and by instructions: one row each, with the sizes at which it is.

mod entry;
mod framing;
mod guards;
mod mesh;
mod messages;
mod picks;
mod policies;
mod routes;

/// One measured step, ready to be repeated.
pub(crate) type Run = Box<dyn FnMut()>;

/// Something that is measured.
pub(crate) struct Row {
    /// What it is called in tables and in the file of budgets.
    pub(crate) name: &'static str,
    /// How many there are of what it looks among. Where these are two, the second must cost about as much as the first.
    pub(crate) sizes: &'static [usize],
    /// Makes it at a size. All that is prepared once is prepared here.
    pub(crate) make: fn(usize) -> Run,
}

impl Row {
    /// The name at a size.
    pub(crate) fn title(&self, size: usize) -> String {
        format!("{} of {size}", self.name)
    }
}

/// All rows. A new one is one function and one line.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, sizes, make| Row { name, sizes, make };
    const RULES: &[usize] = &[10, 1_000];
    const HOSTS: &[usize] = &[10, 10_000];
    vec![
        row("exact path, first", RULES, routes::exact_first),
        row("exact path, last", RULES, routes::exact_last),
        row("exact path, none", RULES, routes::exact_none),
        row("exact path, one after the other", RULES, routes::exact_in_turn),
        row("prefix, last", RULES, routes::prefix_last),
        row("prefix, none", RULES, routes::prefix_none),
        row("prefix, then the rule for all else", RULES, routes::prefix_catch_all),
        row("prefix, case aside", RULES, routes::prefix_caseless),
        row("prefix behind a long common one", RULES, routes::prefix_long),
        row("prefixes of many lengths", RULES, routes::prefix_lengths),
        row("path of twenty segments", RULES, routes::deep_path),
        row("exact, prefix and pattern mixed", RULES, routes::mixed),
        row("pattern that begins with a text", RULES, routes::pattern),
        row("one rule, last match", RULES, routes::one_rule),
        row("one path, told apart by a header", RULES, routes::header),
        row("told apart by authority", RULES, routes::authority),
        row("service by full name", HOSTS, mesh::full_name),
        row("service by short name in its namespace", HOSTS, mesh::short_name),
        row("service by wildcard", HOSTS, mesh::wildcard),
        row("rules of a host without service", HOSTS, mesh::unowned),
        row("rules of a wildcard without service", HOSTS, mesh::unowned_wildcard),
        row("name that means nothing", HOSTS, mesh::unknown),
        row("virtual host of a gateway", HOSTS, entry::virtual_host),
        row("inbound, rule of a policy", RULES, entry::inbound),
        row("inbound, last of policies of every kind", RULES, policies::last),
        row("inbound, none of policies of every kind", RULES, policies::none),
        row("inbound, byte stream under policies", RULES, policies::stream),
        row("turn by turn", &[100], picks::in_turn),
        row("turn by turn, weighted", &[100], picks::in_turn_weighted),
        row("less busy of two", &[100], picks::less_busy),
        row("at random", &[100], picks::at_random),
        row("ring hash", &[100], picks::ring),
        row("Maglev", &[100], picks::maglev),
        row("endpoint of a request, guards off", &[10], guards::off),
        row("endpoint of a request, guards on", &[10], guards::on),
        row("fields of a request judged as bytes", &[8], framing::request),
        row("fields of an answer judged as bytes", &[8], framing::answer),
        row("HTTP/2 frames judged as bytes", &[8], framing::frames),
        row("fields of an HTTP/2 request walked", &[8], framing::walked),
        row("fields of an HTTP/1 request in its one form", &[8], messages::http1),
        row("fields of an HTTP/2 request in its one form", &[8], messages::http2),
        row("fields of a request whose path is resolved", &[8], messages::resolved),
        row("fields of an answer in its one form", &[8], messages::answer),
    ]
}
