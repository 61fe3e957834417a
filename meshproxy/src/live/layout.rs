//! How endpoints of a destination are chosen, for each place that callers of this host are at: laid out when endpoints,
//! their health or their weights change, so that a request only looks up.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use mesh_core::balancing::balancer::LoadView;
use mesh_core::balancing::layers::{Candidate, Condition, Layers, Localities, Manner};
use mesh_core::balancing::locality::Preference;
use mesh_core::balancing::policy::Warmup;
use mesh_core::balancing::priority::{Place, Standing};
use mesh_core::balancing::utilization::Utilization;
use mesh_core::balancing::zones::Zones;
use mesh_core::tables::Tables;
use mesh_core::tables::destinations::Destination;
use mesh_core::tables::workloads::HostedWorkload;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::random::Random;

use super::endpoint::LiveEndpoint;
use super::load::weigh;
use super::registry::Registry;

/// Most steps in which an endpoint warms up.
const STEPS: u32 = 50;
/// No step is shorter.
const STEP: Duration = Duration::from_millis(100);
/// No step is longer.
const LONG_STEP: Duration = Duration::from_secs(5);
/// Weights in a warm-up are so much finer than those declared.
const FINER: u64 = 100;

/// Where a caller is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct CallerPlace {
    locality: Locality,
    labels: Labels,
    network: Option<Text>,
    node: Option<Text>,
}

impl CallerPlace {
    /// Where a workload of this host is.
    pub(super) fn of(hosted: &HostedWorkload) -> CallerPlace {
        let section = &hosted.section;
        CallerPlace {
            locality: section.locality.clone(),
            labels: section.labels.clone(),
            network: section.network.clone(),
            node: Some(section.node.clone()),
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            locality: &self.locality,
            labels: &self.labels,
            network: self.network.as_deref(),
            node: self.node.as_deref(),
        }
    }
}

/// Where the callers of this host are, by number. Number 0 is whoever is not known.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Callers(Vec<CallerThere>);

/// Callers at a place.
#[derive(Debug, PartialEq, Eq)]
struct CallerThere {
    number: u32,
    place: CallerPlace,
    /// Where their own service is, and how many of it.
    siblings: Vec<(Locality, u64)>,
}

impl Callers {
    /// The places of this host's workloads. A caller that is not known is one of this host all the same: it is where they
    /// all are, and the only workload there is counts as the caller, as it does for the identity.
    pub(super) fn of(tables: &Tables, registry: &mut Registry) -> Callers {
        let workloads: Vec<&Arc<HostedWorkload>> = tables.workloads.values().collect();
        let places: Vec<CallerPlace> = workloads.iter().map(|hosted| CallerPlace::of(hosted)).collect();
        let unknown = match places.as_slice() {
            [] => CallerPlace::default(),
            [only] => only.clone(),
            [first, rest @ ..] => {
                let agrees = rest.iter().all(|place| place.locality == first.locality);
                CallerPlace {
                    locality: if agrees { first.locality.clone() } else { Locality::default() },
                    node: first.node.clone(),
                    ..CallerPlace::default()
                }
            }
        };
        // Looked at by few destinations, and then by all callers.
        let wanted =
            tables.destinations.iter().any(|d| matches!(d.policy.preference, Preference::Zones { .. }));
        let siblings = |hosted: &HostedWorkload| match wanted {
            true => tables.siblings(&hosted.section),
            false => Vec::new(),
        };
        let only = if let [only] = workloads.as_slice() { siblings(only) } else { Vec::new() };
        let mut callers = vec![CallerThere { number: 0, place: unknown, siblings: only }];
        for (place, hosted) in places.into_iter().zip(workloads) {
            let number = registry.place(&place);
            if callers.iter().all(|known| known.number != number) {
                callers.push(CallerThere { number, place, siblings: siblings(hosted) });
            }
        }
        Callers(callers)
    }
}

/// The layers for each place. Where they change while the destination stays, they are swapped.
#[derive(Debug)]
pub struct Layouts {
    layouts: Vec<Layout>,
    /// Which of them is a caller's, by the number of its place; the first one for those that are not listed.
    places: Vec<(u32, usize)>,
    /// Numbers of the localities of endpoints, where localities have shares.
    localities: Vec<usize>,
    panic_percent: u32,
    shifts: bool,
}

#[derive(Debug)]
struct Layout {
    standings: Vec<Standing>,
    /// The caller's zone and how its own service is spread, where traffic goes by that.
    zones: Option<OwnZone>,
    /// What holds while nothing shifts.
    fixed: Arc<Layers>,
    /// In its place where something does.
    shifting: Option<ArcSwap<Layers>>,
}

/// A caller among the numbered localities of a destination.
#[derive(Debug, PartialEq, Eq)]
struct OwnZone {
    own: usize,
    callers: Vec<u64>,
    least: u32,
}

impl OwnZone {
    fn of(destination: &Destination, endpoints: &[LiveEndpoint], caller: &CallerThere) -> Option<OwnZone> {
        let Preference::Zones { min_cluster_size, .. } = &destination.policy.preference else { return None };
        let known = localities(endpoints);
        let number = |locality: &Locality| {
            let there = endpoints.iter().position(|endpoint| endpoint.endpoint.locality == *locality)?;
            known.get(there).copied()
        };
        let own = number(&caller.place.locality)?;
        let mut callers = vec![0; known.iter().max().map_or(0, |most| most + 1)];
        for (locality, count) in &caller.siblings {
            match number(locality) {
                Some(zone) => callers[zone] += count,
                // In a zone without endpoints: they count all the same.
                None => callers.push(*count),
            }
        }
        Some(OwnZone { own, callers, least: *min_cluster_size })
    }
}

impl Layouts {
    /// Lays the endpoints of a destination out. What is as it was before is taken from there.
    pub(super) fn new(
        destination: &Destination,
        endpoints: &[LiveEndpoint],
        callers: &Callers,
        before: Option<&Layouts>,
    ) -> Layouts {
        let policy = &destination.policy;
        let nowhere = CallerThere { number: 0, place: CallerPlace::default(), siblings: Vec::new() };
        let callers = if callers.0.is_empty() { std::slice::from_ref(&nowhere) } else { &callers.0 };
        let mut layouts: Vec<Layout> = Vec::new();
        let mut places = Vec::new();
        for caller in callers {
            let standings = destination.standings(&caller.place.place());
            let zones = OwnZone::of(destination, endpoints, caller);
            let is_known = |layout: &Layout| layout.standings == standings && layout.zones == zones;
            let known = layouts.iter().position(is_known);
            places.push((caller.number, known.unwrap_or(layouts.len())));
            if known.is_none() {
                layouts.push(Layout { standings, zones, fixed: Arc::default(), shifting: None });
            }
        }
        if layouts.len() == 1 {
            places.clear();
        }
        let by_locality = matches!(policy.preference, Preference::Shares(_) | Preference::Zones { .. });
        let detection = policy.outlier_detection.as_ref();
        let mut laid = Layouts {
            layouts: Vec::new(),
            places,
            localities: if by_locality { localities(endpoints) } else { Vec::new() },
            panic_percent: detection.map_or(0, |detection| detection.min_health_percent),
            shifts: false,
        };
        for (index, mut layout) in layouts.into_iter().enumerate() {
            let before = before.and_then(|before| before.layouts.get(index)).map(Layout::now);
            let layers = laid.lay(destination, endpoints, &layout, before.as_deref());
            let ejects = detection.is_some() && layers.follows_health(laid.manner(destination, &layout));
            let shifts = ejects || policy.warmup.is_some() || policy.load_balancer.utilization().is_some();
            layout.fixed = match before {
                Some(before) if *before == layers => before,
                Some(_) | None => Arc::new(layers),
            };
            layout.shifting = shifts.then(|| ArcSwap::new(Arc::clone(&layout.fixed)));
            laid.shifts |= shifts;
            laid.layouts.push(layout);
        }
        laid
    }

    /// Lays everything out anew, as endpoints are now.
    pub(super) fn anew(&self, destination: &Destination, endpoints: &[LiveEndpoint]) {
        for layout in &self.layouts {
            let Some(shifting) = &layout.shifting else { continue };
            let now = shifting.load_full();
            let next = self.lay(destination, endpoints, layout, Some(&now));
            if *now != next {
                shifting.store(Arc::new(next));
            }
        }
    }

    /// Whether anything changes while the destination stays.
    pub(super) fn shifts(&self) -> bool {
        self.shifts
    }

    /// The endpoint for a caller at a place.
    pub(super) fn pick(
        &self,
        place: u32,
        view: &impl LoadView,
        hash: Option<u64>,
        turn: impl Fn() -> u64,
        random: &mut Random,
    ) -> Option<usize> {
        let index = match self.places.as_slice() {
            [] => 0,
            places => places.iter().find(|(number, _)| *number == place).map_or(0, |(_, index)| *index),
        };
        let layout = self.layouts.get(index)?;
        match &layout.shifting {
            None => layout.fixed.pick(view, hash, turn, random),
            Some(shifting) => shifting.load().pick(view, hash, turn, random),
        }
    }

    /// The weight of an endpoint among its neighbours, for callers that are not known.
    pub(super) fn weight(&self, index: usize) -> Option<u32> {
        let layers = self.layouts.first()?.guard();
        layers.members().find(|member| member.index == index).map(|member| member.weight)
    }

    /// Of each place whose callers find endpoints in their own order: the shares of priorities in percent.
    pub(super) fn loads(&self) -> Vec<Vec<u64>> {
        let shares = |layout: &Layout| layout.now().loads().map(|load| load.percent).collect();
        self.layouts.iter().map(shares).collect()
    }

    /// The priority of each endpoint for callers that are not known, or all are alike.
    pub(super) fn priority(&self, index: usize) -> Option<u32> {
        self.layouts.first()?.standings.get(index).map(|standing| standing.priority)
    }

    fn manner<'a>(&self, destination: &'a Destination, layout: &'a Layout) -> Manner<'a> {
        let localities = match (&destination.policy.preference, &layout.zones) {
            (Preference::Shares(_), _) => Localities::Shares,
            (_, Some(OwnZone { own, callers, least })) => {
                Localities::Zones(Zones { own: *own, callers, least: *least })
            }
            (_, None) => Localities::Together,
        };
        Manner { algorithm: &destination.policy.load_balancer, localities, panic_percent: self.panic_percent }
    }

    fn lay(
        &self,
        destination: &Destination,
        endpoints: &[LiveEndpoint],
        layout: &Layout,
        before: Option<&Layers>,
    ) -> Layers {
        let candidate = |(index, (endpoint, standing)): (usize, (&LiveEndpoint, &Standing))| Candidate {
            index,
            // What an endpoint is known by on every host is its address: a key finds the same one everywhere.
            key: endpoint.endpoint.address.hash(),
            standing: *standing,
            weight: standing.weight,
            locality: self.localities.get(index).copied().unwrap_or(0),
            condition: condition(endpoint),
        };
        let mut candidates: Vec<Candidate> =
            endpoints.iter().zip(&layout.standings).enumerate().map(candidate).collect();
        candidates.retain(|candidate| candidate.standing.weight > 0);
        if let Some(utilization) = destination.policy.load_balancer.utilization() {
            report(utilization, endpoints, &mut candidates);
        }
        if let Some(warmup) = &destination.policy.warmup {
            warm(warmup, endpoints, &mut candidates);
        }
        Layers::new(self.manner(destination, layout), &candidates, before)
    }
}

impl Layout {
    fn now(&self) -> Arc<Layers> {
        self.shifting.as_ref().map_or_else(|| Arc::clone(&self.fixed), ArcSwap::load_full)
    }

    fn guard(&self) -> Guard<Arc<Layers>> {
        self.shifting.as_ref().map_or_else(|| Guard::from_inner(Arc::clone(&self.fixed)), ArcSwap::load)
    }
}

fn condition(endpoint: &LiveEndpoint) -> Condition {
    if endpoint.is_usable() {
        Condition::Usable
    } else if endpoint.may_get_traffic() {
        Condition::Ejected
    } else {
        Condition::Out
    }
}

fn localities(endpoints: &[LiveEndpoint]) -> Vec<usize> {
    let mut known: Vec<&Locality> = Vec::new();
    let mut number = |locality| match known.iter().position(|known| *known == locality) {
        Some(index) => index,
        None => {
            known.push(locality);
            known.len() - 1
        }
    };
    endpoints.iter().map(|endpoint| number(&endpoint.endpoint.locality)).collect()
}

/// Weights by what endpoints have reported.
fn report(utilization: &Utilization, endpoints: &[LiveEndpoint], candidates: &mut [Candidate]) {
    let reachable = candidates.iter_mut().filter(|candidate| candidate.condition != Condition::Out);
    let mut reachable: Vec<&mut Candidate> = reachable.collect();
    let indices: Vec<usize> = reachable.iter().map(|candidate| candidate.index).collect();
    for (candidate, share) in reachable.iter_mut().zip(weigh(utilization, endpoints, &indices)) {
        candidate.weight = share;
    }
}

/// Weights of endpoints that have come lately, in part.
fn warm(warmup: &Warmup, endpoints: &[LiveEndpoint], candidates: &mut [Candidate]) {
    let age = |candidate: &Candidate| endpoints.get(candidate.index).and_then(|e| e.state.age());
    if !candidates.iter().filter_map(age).any(|age| age < warmup.duration) {
        return;
    }
    for candidate in candidates {
        let share = age(candidate).map_or(1_000_000, |age| warmup.share(age).ppm());
        let weight = u64::from(candidate.weight) * FINER * u64::from(share) / 1_000_000;
        candidate.weight = u32::try_from(weight.max(1)).unwrap_or(u32::MAX);
    }
}

/// How soon a warm-up goes a step on, while it lasts for any of the endpoints.
pub(super) fn step(warmup: &Warmup, endpoints: &[LiveEndpoint]) -> Option<Duration> {
    let step = (warmup.duration / STEPS).clamp(STEP, LONG_STEP);
    // One step longer, so that the last one finds it over.
    let is_new =
        |endpoint: &LiveEndpoint| endpoint.state.age().is_some_and(|age| age < warmup.duration + step);
    endpoints.iter().any(is_new).then_some(step)
}
