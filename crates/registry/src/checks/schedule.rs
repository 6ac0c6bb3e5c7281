//! The schedule of active checks: jittered, at most so many at once and a second, only for what this
//! process watches over.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use portico_base::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Finding, implicit, look};
use crate::domain::check::{CheckKey, CheckSpec, Status, Streak};
use crate::domain::instance::Definition;
use crate::hub::Core;
use crate::model::InstanceEntry;
use crate::ops::checks::answer;

/// Checks that run at once.
const AT_ONCE: usize = 256;
/// First looks at restored instances that run at once (RG-7).
const FIRST_AT_ONCE: usize = 64;
/// Checks a second (RG-21).
const PER_SECOND: usize = 2_000;
/// Plans that are looked at in one go, begun or put off.
const LOOKED_AT: usize = 512;
/// Until the second look, when the first one failed.
const SOON: Duration = Duration::from_secs(1);
/// How often nodes as a whole are looked through for checks.
const NODES_EVERY: Duration = Duration::from_secs(5);

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Check(CheckKey),
    /// An instance that has no check of its own, and must show that it can be connected to.
    Implicit(Uuid),
}

struct Plan {
    due: (Instant, u64),
    spec: Arc<CheckSpec>,
    streak: Streak,
    running: bool,
    first: bool,
}

/// Everything that is to be looked at, and when.
#[derive(Default)]
pub(crate) struct Schedule {
    due: BTreeMap<(Instant, u64), Item>,
    plans: HashMap<Item, Plan>,
    of: HashMap<Uuid, Vec<Item>>,
    of_nodes: HashSet<Item>,
    next: u64,
    /// When the last checks of this second began.
    begun: VecDeque<Instant>,
    running: usize,
    running_first: usize,
}

enum Outcome {
    Found(Item, Finding, Duration),
    Told,
}

type Work = FuturesUnordered<BoxFuture<'static, Outcome>>;

/// Runs until `stop`.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let cx = core.own_context("registry.checks");
    let mut schedule = Schedule::default();
    let mut work = Work::new();
    let everybody: Vec<Uuid> = core
        .model
        .read()
        .instances()
        .map(|e| e.instance.id)
        .collect();
    core.agenda.touch(everybody);
    let mut nodes_at = Instant::now();
    loop {
        schedule.refresh(&core);
        let now = Instant::now();
        if now >= nodes_at {
            schedule.refresh_nodes(&core);
            nodes_at = now + NODES_EVERY;
        }
        schedule.begin(&core, &work, now);
        let wake = schedule.next_due(now).unwrap_or(nodes_at).min(nodes_at);
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.agenda.check_woken() => {}
            Some(outcome) = work.next() => schedule.take(&core, &cx, &work, outcome),
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

impl Schedule {
    /// Takes in what changed.
    fn refresh(&mut self, core: &Core) {
        let changed = core.agenda.take_check();
        if !changed.is_empty() {
            let model = core.model.read();
            for id in changed {
                let wanted = match model.instance(id) {
                    Some(entry) if core.owns(id) => {
                        let own: Vec<(Item, Arc<CheckSpec>, bool)> = model
                            .checks_of(id)
                            .filter(|c| c.spec.probe.is_active())
                            .map(|c| (Item::Check(c.key.clone()), Arc::clone(&c.spec), !c.answered))
                            .collect();
                        let probe = own.is_empty() && needs_probe(entry);
                        let implicit = probe.then(|| (Item::Implicit(id), implicit(core), true));
                        own.into_iter().chain(implicit).collect()
                    }
                    _ => Vec::new(),
                };
                self.want(core, id, wanted);
            }
        }
        let suspects = core.agenda.take_suspects();
        for id in suspects {
            for item in self.of.get(&id).cloned().unwrap_or_default() {
                self.at(&item, Instant::now());
            }
            // An instance without checks gets its implicit probe with the change of its state; until
            // that is written, it is wanted here already.
            if !self.of.contains_key(&id) && core.owns(id) {
                self.want(core, id, vec![(Item::Implicit(id), implicit(core), true)]);
            }
        }
    }

    fn want(&mut self, core: &Core, id: Uuid, wanted: Vec<(Item, Arc<CheckSpec>, bool)>) {
        let before = self.of.remove(&id).unwrap_or_default();
        for item in before {
            if wanted.iter().all(|(w, _, _)| *w != item) {
                self.drop_plan(&item);
            }
        }
        let items: Vec<Item> = wanted.iter().map(|(item, _, _)| item.clone()).collect();
        for (item, spec, first) in wanted {
            self.plan(core, item, spec, first);
        }
        if !items.is_empty() {
            self.of.insert(id, items);
        }
    }

    fn refresh_nodes(&mut self, core: &Core) {
        let wanted: Vec<(Item, Arc<CheckSpec>)> = {
            let model = core.model.read();
            model
                .all_node_checks()
                .filter(|c| c.spec.probe.is_active() && core.shards.owns_text(&c.key.id))
                .map(|c| (Item::Check(c.key.clone()), Arc::clone(&c.spec)))
                .collect()
        };
        let keep: HashSet<Item> = wanted.iter().map(|(item, _)| item.clone()).collect();
        let gone: Vec<Item> = self.of_nodes.difference(&keep).cloned().collect();
        for item in gone {
            self.drop_plan(&item);
        }
        for (item, spec) in wanted {
            self.plan(core, item, spec, false);
        }
        self.of_nodes = keep;
    }

    /// Adds a plan; a known one keeps its time unless what is asked has changed. The first look is at
    /// once, the others begin somewhere in their interval, so that they do not move in step.
    fn plan(&mut self, core: &Core, item: Item, spec: Arc<CheckSpec>, first: bool) {
        if self
            .plans
            .get(&item)
            .is_some_and(|p| p.spec == spec && (p.first || !first))
        {
            return;
        }
        let spread = spec.interval().as_millis().try_into().unwrap_or(u64::MAX);
        let wait = if first { 0 } else { core.random.below(spread) };
        let at = Instant::now() + Duration::from_millis(wait);
        if let Some(known) = self.plans.get_mut(&item) {
            known.spec = spec;
            known.first |= first;
            known.streak = Streak::default();
            self.at(&item, at);
            return;
        }
        let due = (at, self.number());
        self.due.insert(due, item.clone());
        self.plans.insert(
            item,
            Plan {
                due,
                spec,
                streak: Streak::default(),
                running: false,
                first,
            },
        );
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn at(&mut self, item: &Item, at: Instant) {
        let number = self.number();
        if let Some(plan) = self.plans.get_mut(item) {
            self.due.remove(&plan.due);
            plan.due = (at, number);
            self.due.insert(plan.due, item.clone());
        }
    }

    fn drop_plan(&mut self, item: &Item) {
        if let Some(plan) = self.plans.remove(item) {
            self.due.remove(&plan.due);
        }
    }

    /// Begins what is due, within the bounds.
    fn begin(&mut self, core: &Arc<Core>, work: &Work, now: Instant) {
        while self
            .begun
            .front()
            .is_some_and(|at| now - *at >= Duration::from_secs(1))
        {
            self.begun.pop_front();
        }
        let mut later = Vec::new();
        while self.running < AT_ONCE && self.begun.len() < PER_SECOND && later.len() < LOOKED_AT {
            let Some((&due, _)) = self.due.first_key_value().filter(|(due, _)| due.0 <= now) else {
                break;
            };
            let Some(item) = self.due.remove(&due) else {
                break;
            };
            let Some(plan) = self.plans.get_mut(&item) else {
                continue;
            };
            if plan.running {
                // It takes longer than its interval: never two at once.
                let at = now + plan.spec.interval();
                later.push((item, at));
                continue;
            }
            if plan.first && self.running_first >= FIRST_AT_ONCE {
                later.push((item, now + Duration::from_millis(20)));
                continue;
            }
            plan.running = true;
            self.running += 1;
            if plan.first {
                self.running_first += 1;
            }
            self.begun.push_back(now);
            let (spec, core) = (Arc::clone(&plan.spec), Arc::clone(core));
            let jitter = plan.spec.interval_ms / 10;
            let next = plan.spec.interval()
                + Duration::from_millis(core.random.below(2 * jitter + 1))
                - Duration::from_millis(jitter);
            later.push((item.clone(), now + next));
            work.push(Box::pin(async move {
                let begun = Instant::now();
                let definition = definition(&core, &item);
                let finding = look(&core, definition.as_ref(), &spec).await;
                Outcome::Found(item, finding, begun.elapsed())
            }));
        }
        for (item, at) in later {
            let number = self.number();
            if let Some(plan) = self.plans.get_mut(&item) {
                plan.due = (at, number);
                self.due.insert(plan.due, item);
            }
        }
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let first = self.due.first_key_value().map(|((at, _), _)| *at)?;
        let crowded = self.running >= AT_ONCE
            || self.running_first >= FIRST_AT_ONCE
            || self.begun.len() >= PER_SECOND;
        Some(if crowded {
            first.max(now + Duration::from_millis(20))
        } else {
            first
        })
    }

    fn take(&mut self, core: &Arc<Core>, cx: &Context, work: &Work, outcome: Outcome) {
        let Outcome::Found(item, finding, took) = outcome else {
            return;
        };
        self.running -= 1;
        let kind = match &item {
            Item::Check(_) => self
                .plans
                .get(&item)
                .map_or("gone", |p| p.spec.probe.kind()),
            Item::Implicit(_) => "connect",
        };
        core.metrics
            .checks
            .with(&[kind, finding.status.as_str()])
            .inc();
        core.metrics.check_seconds.observe(took);
        let Some(plan) = self.plans.get_mut(&item) else {
            // It is gone, and with it its place among the first ones, which is counted anew.
            self.recount();
            return;
        };
        plan.running = false;
        let first = std::mem::take(&mut plan.first);
        if first {
            self.running_first = self.running_first.saturating_sub(1);
        }
        match &item {
            Item::Implicit(id) => self.take_implicit(core, *id, &item, &finding),
            Item::Check(key) => {
                let told = self.judge(core, key, &item, &finding);
                if let Some(status) = told {
                    let (core, cx, key) = (Arc::clone(core), cx.clone(), key.clone());
                    work.push(Box::pin(async move {
                        if let Err(error) = answer(&core, &cx, &key, status, &finding.output).await {
                            // The next look says the same again.
                            tracing::debug!(err = %error, check = %key.id, "a check's answer could not be written");
                        }
                        Outcome::Told
                    }));
                }
            }
        }
    }

    fn recount(&mut self) {
        self.running_first = self.plans.values().filter(|p| p.running && p.first).count();
    }

    /// The status to tell; nothing while a first failure waits for a second one.
    fn judge(
        &mut self,
        core: &Core,
        key: &CheckKey,
        item: &Item,
        finding: &Finding,
    ) -> Option<Status> {
        let (present, fresh, instance) = {
            let model = core.model.read();
            let check = model.check(key)?;
            (check.status, !check.answered, check.instance)
        };
        let plan = self.plans.get_mut(item)?;
        let status = plan.streak.take(finding.status, present, fresh, &plan.spec);
        let unsure =
            fresh && finding.status == Status::Critical && !plan.streak.is_down(&plan.spec);
        let soon = unsure || (finding.status == Status::Critical && present != Status::Critical);
        if soon {
            let wait = plan.spec.interval().min(SOON);
            self.at(item, Instant::now() + wait);
        }
        if let Some(id) = instance
            && finding.status != Status::Critical
        {
            reached(core, id);
        }
        (!unsure).then_some(status)
    }

    fn take_implicit(&mut self, core: &Core, id: Uuid, item: &Item, finding: &Finding) {
        if finding.status == Status::Critical {
            let told = core
                .model
                .read()
                .instance(id)
                .is_some_and(|e| e.live.connect_failed());
            if told {
                core.agenda.judge([id]);
            }
            self.at(item, Instant::now() + SOON);
        } else {
            if let Some(entry) = core.model.read().instance(id) {
                entry.live.set_probed(true);
            }
            reached(core, id);
            core.agenda.touch([id]);
            self.at(item, Instant::now() + SOON);
        }
    }
}

/// A probe reached an instance: when it had been refused, that counts towards its return.
fn reached(core: &Core, id: Uuid) {
    let rise = core.tunables.get().defaults.rise;
    let back = core
        .model
        .read()
        .instance(id)
        .is_some_and(|e| e.live.connected(rise));
    if back {
        core.agenda.judge([id]);
    }
}

/// An instance without active checks must show itself: it was refused, restored, or has to be probed first.
fn needs_probe(entry: &InstanceEntry) -> bool {
    let live = &entry.live;
    let connectable =
        entry.view.port > 0 || entry.view.protocol == portico_contract::directory::Protocol::Unix;
    let unseen = live.restored().is_some_and(|at| live.seen() < at);
    connectable && (live.is_refused() || (!live.is_probed() && (live.is_probing() || unseen)))
}

/// The definition of the instance that a check belongs to.
fn definition(core: &Core, item: &Item) -> Option<Definition> {
    let model = core.model.read();
    let id = match item {
        Item::Implicit(id) => Some(*id),
        Item::Check(key) => model.check(key)?.instance,
    };
    id.and_then(|id| model.instance(id))
        .map(|e| e.instance.definition.clone())
}
