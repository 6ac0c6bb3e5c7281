//! What a release may do next: pure rules over the document and the time, without any I/O (GW-80…82).
//!
//! The state lives in the document itself, so that every change of it is a version like any other: it has
//! an author, survives a restart, and two replicas that change it at once collide on its version number.

use portico_base::Timestamp;

use super::refused::Refused;
use crate::objects::doc::{
    Candidate, Guard, Numbers, Phase, PlanDoc, Previous, ReleaseDoc, ReleaseState, Stopped,
};

/// Seconds that the version before stays ready, unless the document says otherwise (GW-82).
pub(super) const ROLLBACK_WINDOW_S: u32 = 600;

/// What is due by time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The next step.
    Step,
    /// The last hold is over: the candidate becomes stable.
    Promote,
    /// The last hold is over, and somebody must promote.
    Wait,
    /// The version before is not kept any longer.
    CloseWindow,
}

/// Why a step that is due by time does not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// No instance of the candidate can answer.
    CandidateNotReady,
    /// `wait_for_traffic`, and there was too little.
    TooFewRequests,
}

/// What the rules need to know of the world.
#[derive(Debug, Clone, Copy)]
pub(super) struct World {
    /// Now.
    pub(super) now: Timestamp,
    /// Instances of the candidate that can answer.
    pub(super) candidate_ready: bool,
    /// Requests since the trial began, of the side that had fewer.
    pub(super) requests: u64,
}

impl ReleaseDoc {
    /// The state; that of a document without one is what it would begin with.
    fn progress(&self, now: Timestamp) -> ReleaseState {
        self.state.clone().unwrap_or_else(|| {
            let phase = match &self.candidate {
                None => Phase::Steady,
                Some(_) => Phase::Manual,
            };
            begun(phase, now)
        })
    }

    fn window(&self) -> chrono::TimeDelta {
        let seconds = self.rollback_window_s.unwrap_or(ROLLBACK_WINDOW_S);
        chrono::TimeDelta::seconds(i64::from(seconds))
    }

    /// The steps of the plan, or the usual ones.
    pub(super) fn steps(&self) -> Vec<f64> {
        { self.plan.as_ref() }.map_or_else(|| PlanDoc::default().steps, |plan| plan.steps.clone())
    }

    /// The weight behind the present one, where there is one.
    pub(super) fn next_weight(&self) -> Option<f64> {
        let weight = self.candidate.as_ref()?.weight;
        self.steps().into_iter().find(|step| *step > weight)
    }

    /// The phase, also of a document from before there were any.
    pub(super) fn phase(&self) -> Phase {
        match (&self.state, &self.candidate) {
            (Some(state), _) => state.phase,
            (None, Some(_)) => Phase::Manual,
            (None, None) => Phase::Steady,
        }
    }

    /// True while requests may reach the candidate.
    pub(super) fn has_trial(&self) -> bool {
        self.phase() != Phase::Aborted && { self.candidate.as_ref() }
            .is_some_and(|c| c.weight > 0.0 || !c.matchers.is_empty())
    }

    /// When the hold of the present step ends; nothing unless the plan goes on.
    pub(super) fn hold_ends(&self) -> Option<Timestamp> {
        let (state, plan) = (self.state.as_ref()?, self.plan.as_ref()?);
        if state.phase != Phase::Progressing {
            return None;
        }
        let hold = i64::from(plan.hold_s) * 1_000;
        let held = i64::try_from(state.held_ms).unwrap_or(hold);
        Some(state.since + chrono::TimeDelta::milliseconds((hold - held).max(0)))
    }

    /// What the passing of time asks for, and what keeps it from happening.
    pub(super) fn due(&self, world: &World) -> Option<Result<Due, Hindrance>> {
        if let Some(due) = self.step_due(world) {
            return Some(due);
        }
        let previous = self.state.as_ref()?.previous.as_ref()?;
        (!previous.over && world.now >= previous.until).then_some(Ok(Due::CloseWindow))
    }

    fn step_due(&self, world: &World) -> Option<Result<Due, Hindrance>> {
        let (candidate, plan) = (self.candidate.as_ref()?, self.plan.as_ref()?);
        if self.hold_ends()? > world.now {
            return None;
        }
        if !world.candidate_ready {
            return Some(Err(Hindrance::CandidateNotReady));
        }
        if plan.wait_for_traffic && world.requests < u64::from(plan.guards.min_requests) {
            return Some(Err(Hindrance::TooFewRequests));
        }
        Some(Ok(match self.next_weight() {
            Some(_) => Due::Step,
            None if candidate.weight >= 100.0 && plan.promote => Due::Promote,
            None => Due::Wait,
        }))
    }

    /// The next step, or the first one again after an abort.
    ///
    /// # Errors
    /// Without a candidate, and behind the last step.
    pub(super) fn step(&mut self, now: Timestamp) -> Result<(), Refused> {
        let mut state = self.progress(now);
        let (steps, next, plan) = (self.steps(), self.next_weight(), self.plan.is_some());
        let candidate = self.candidate.as_mut().ok_or(Refused::NoCandidate)?;
        let weight = if state.phase == Phase::Aborted {
            state.run = run(now);
            state.stopped = None;
            steps.first().copied()
        } else {
            next
        };
        candidate.weight = weight.ok_or(Refused::LastStep)?;
        state.phase = match (state.phase, plan) {
            (Phase::Paused, _) => Phase::Paused,
            (_, true) => Phase::Progressing,
            (_, false) => Phase::Manual,
        };
        state.step = reached(&steps, candidate.weight);
        (state.since, state.held_ms) = (now, 0);
        self.state = Some(state);
        Ok(())
    }

    /// Stops the clock of the hold.
    ///
    /// # Errors
    /// Unless the plan goes on.
    pub(super) fn pause(&mut self, now: Timestamp) -> Result<(), Refused> {
        let mut state = self.progress(now);
        if state.phase != Phase::Progressing {
            return Err(wrong("pause", state.phase));
        }
        let more = (now - state.since).num_milliseconds();
        state.held_ms = state
            .held_ms
            .saturating_add(u64::try_from(more).unwrap_or(0));
        (state.phase, state.since) = (Phase::Paused, now);
        self.state = Some(state);
        Ok(())
    }

    /// Lets the clock of the hold go on.
    ///
    /// # Errors
    /// Unless it is paused.
    pub(super) fn resume(&mut self, now: Timestamp) -> Result<(), Refused> {
        let mut state = self.progress(now);
        if state.phase != Phase::Paused {
            return Err(wrong("resume", state.phase));
        }
        (state.phase, state.since) = (Phase::Progressing, now);
        self.state = Some(state);
        Ok(())
    }

    /// The candidate becomes the stable version; `serving` is the stable one where the document names none.
    ///
    /// # Errors
    /// Without a candidate, and after an abort.
    pub(super) fn promote(
        &mut self,
        now: Timestamp,
        serving: Option<String>,
    ) -> Result<(), Refused> {
        let state = self.progress(now);
        if state.phase == Phase::Aborted {
            return Err(Refused::Aborted);
        }
        let candidate = self.candidate.take().ok_or(Refused::NoCandidate)?;
        let before = self.stable.replace(candidate.version).or(serving);
        self.state = Some(ReleaseState {
            previous: self.kept(before, now).or(state.previous),
            ..begun(Phase::Steady, now)
        });
        Ok(())
    }

    /// The candidate gets nothing any more; a guard says why.
    ///
    /// # Errors
    /// Without a candidate, and when it is so already.
    pub(super) fn abort(
        &mut self,
        now: Timestamp,
        why: Option<(Guard, Numbers)>,
    ) -> Result<(), Refused> {
        let state = self.progress(now);
        if state.phase == Phase::Aborted {
            return Err(wrong("abort", Phase::Aborted));
        }
        let candidate = self.candidate.as_mut().ok_or(Refused::NoCandidate)?;
        let weight = std::mem::take(&mut candidate.weight);
        let (guard, numbers) = why.unzip();
        self.state = Some(ReleaseState {
            phase: Phase::Aborted,
            step: 0,
            since: now,
            held_ms: 0,
            stopped: Some(Stopped {
                at: now,
                weight,
                guard,
                numbers,
            }),
            ..state
        });
        Ok(())
    }

    /// Undoes the last switch: a trial ends, else the version before returns.
    ///
    /// # Errors
    /// When there is nothing to return to, or its window is over.
    pub(super) fn roll_back(&mut self, now: Timestamp) -> Result<(), Refused> {
        if self.has_trial() {
            return self.abort(now, None);
        }
        let state = self.progress(now);
        let previous = state.previous.clone().ok_or(Refused::NoPrevious)?;
        if previous.over || now >= previous.until {
            return Err(Refused::WindowOver(previous));
        }
        let left = self.stable.replace(previous.version);
        if { self.candidate.as_ref() }.is_some_and(|c| Some(&c.version) == self.stable.as_ref()) {
            self.candidate = None;
        }
        let phase = match &self.candidate {
            Some(_) => state.phase,
            None => Phase::Steady,
        };
        self.state = Some(ReleaseState {
            phase,
            // Whoever went back too early can return the same way.
            previous: self.kept(left, now),
            since: now,
            ..state
        });
        Ok(())
    }

    /// What the plan waits for behind its last step.
    pub(super) fn wait(&mut self, now: Timestamp) {
        let state = self.progress(now);
        self.state = Some(ReleaseState {
            phase: Phase::Waiting,
            since: now,
            ..state
        });
    }

    /// The version before is not kept any longer.
    pub(super) fn close_window(&mut self) {
        if let Some(previous) = self.state.as_mut().and_then(|s| s.previous.as_mut()) {
            previous.over = true;
        }
    }

    fn kept(&self, version: Option<String>, now: Timestamp) -> Option<Previous> {
        let version = version.filter(|v| Some(v) != self.stable.as_ref())?;
        Some(Previous {
            version,
            until: now + self.window(),
            over: false,
        })
    }
}

/// A document that somebody sent, with the state that follows from it and from the one before. `serving` is the
/// version that gets the traffic where no document names one.
pub(super) fn admit(
    before: Option<&ReleaseDoc>,
    mut wished: ReleaseDoc,
    now: Timestamp,
    serving: Option<String>,
) -> ReleaseDoc {
    let old_stable = before
        .and_then(|b| b.stable.clone())
        .or_else(|| serving.clone());
    if let (Some(candidate), None) = (&wished.candidate, &wished.stable) {
        // From now on it is said and not guessed: a version that registers later does not move the others.
        wished.stable = serving.filter(|version| *version != candidate.version);
    }
    let old = before.and_then(|b| b.state.as_ref());
    let known = old.and_then(|state| state.previous.clone());
    let known = known.filter(|p| Some(&p.version) != wished.stable.as_ref());
    let left = old_stable.filter(|_| wished.stable.is_some());
    let previous = wished
        .kept(left, now)
        .filter(|p| { wished.candidate.as_ref() }.is_none_or(|c| c.version != p.version))
        .or(known);
    let state = trial(before, &mut wished, now);
    wished.state = Some(ReleaseState { previous, ..state });
    wished
}

/// The state of the candidate's trial in a document that somebody sent.
fn trial(before: Option<&ReleaseDoc>, wished: &mut ReleaseDoc, now: Timestamp) -> ReleaseState {
    let same = before.filter(|b| b.stable.is_none() || b.stable == wished.stable);
    let Some(candidate) = wished.candidate.as_mut() else {
        return begun(Phase::Steady, now);
    };
    let same = same.and_then(|b| Some((b, b.candidate.as_ref()?, b.state.as_ref()?)));
    let same = same.filter(|(_, c, _)| c.version == candidate.version);
    let Some((before, old, state)) = same else {
        return begin(wished.plan.as_ref(), candidate, now);
    };
    let moved = (old.weight - candidate.weight).abs() > f64::EPSILON;
    if state.phase == Phase::Aborted {
        if candidate.weight > 0.0 {
            return begin(wished.plan.as_ref(), candidate, now);
        }
        return state.clone();
    }
    let Some(plan) = &wished.plan else {
        return ReleaseState {
            phase: Phase::Manual,
            step: 0,
            held_ms: 0,
            ..state.clone()
        };
    };
    if moved && candidate.weight <= 0.0 {
        return ReleaseState {
            phase: Phase::Aborted,
            step: 0,
            since: now,
            held_ms: 0,
            stopped: Some(Stopped {
                at: now,
                weight: old.weight,
                guard: None,
                numbers: None,
            }),
            ..state.clone()
        };
    }
    if before.plan.is_none() {
        let run = state.run;
        return ReleaseState {
            run,
            ..begin(Some(plan), candidate, now)
        };
    }
    let step = reached(&plan.steps, candidate.weight);
    let more = plan.steps.iter().any(|s| *s > candidate.weight);
    let phase = match state.phase {
        Phase::Waiting if more => Phase::Progressing,
        phase => phase,
    };
    let (since, held_ms) = if moved || phase != state.phase {
        (now, 0)
    } else {
        (state.since, state.held_ms)
    };
    ReleaseState {
        phase,
        step,
        since,
        held_ms,
        ..state.clone()
    }
}

/// A new trial; a plan lifts the weight to its first step at least.
fn begin(plan: Option<&PlanDoc>, candidate: &mut Candidate, now: Timestamp) -> ReleaseState {
    let Some(plan) = plan else {
        return ReleaseState {
            run: run(now),
            ..begun(Phase::Manual, now)
        };
    };
    let first = plan.steps.first().copied().unwrap_or_default();
    candidate.weight = candidate.weight.max(first);
    ReleaseState {
        run: run(now),
        step: reached(&plan.steps, candidate.weight),
        ..begun(Phase::Progressing, now)
    }
}

const fn begun(phase: Phase, now: Timestamp) -> ReleaseState {
    ReleaseState {
        phase,
        run: 0,
        step: 0,
        since: now,
        held_ms: 0,
        previous: None,
        stopped: None,
    }
}

const fn wrong(verb: &'static str, phase: Phase) -> Refused {
    Refused::Phase { verb, phase }
}

/// A number that no earlier trial of the service had.
const fn run(now: Timestamp) -> i64 {
    now.timestamp_micros()
}

/// How many steps a weight has reached.
fn reached(steps: &[f64], weight: f64) -> u32 {
    let count = steps.iter().filter(|step| **step <= weight).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}
