//! The rules over simulated time: steps, holds, pauses, switches and the way back.

use chrono::TimeDelta;
use portico_base::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::machine::{Due, Hindrance, World, admit};
use super::ops::events;
use super::refused::Refused;
use crate::objects::Validate as _;
use crate::objects::doc::{Guard, Numbers, Phase, ReleaseDoc, ReleaseState};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

fn doc(value: Value) -> ReleaseDoc {
    serde_json::from_value(value).expect("a release")
}

/// A document as it is right after it was saved at second 0.
fn saved(value: Value) -> ReleaseDoc {
    admit(None, doc(value), at(0), Some("1".to_owned()))
}

fn canary(plan: &Value) -> ReleaseDoc {
    saved(json!({ "stable": "1", "candidate": { "version": "2" }, "plan": plan }))
}

fn state(doc: &ReleaseDoc) -> &ReleaseState {
    doc.state.as_ref().expect("a saved release has a state")
}

fn weight(doc: &ReleaseDoc) -> f64 {
    doc.candidate.as_ref().expect("a candidate").weight
}

fn world(seconds: i64) -> World {
    World {
        now: at(seconds),
        candidate_ready: true,
        requests: 1_000,
    }
}

/// Does what is due until nothing is, as the job does.
fn run_due(doc: &mut ReleaseDoc, seconds: i64) -> Vec<Due> {
    let mut done = Vec::new();
    while let Some(Ok(due)) = doc.due(&world(seconds)) {
        match due {
            Due::Step => doc.step(at(seconds)).expect("a step is due"),
            Due::Promote => doc.promote(at(seconds), None).expect("a promotion is due"),
            Due::Wait => doc.wait(at(seconds)),
            Due::CloseWindow => doc.close_window(),
        }
        done.push(due);
    }
    done
}

#[test]
fn a_plan_goes_step_by_step_and_promotes_at_its_end() {
    let mut release = canary(&json!({}));
    assert_eq!(
        (state(&release).phase, weight(&release)),
        (Phase::Progressing, 1.0)
    );
    assert_eq!(release.hold_ends(), Some(at(300)));
    assert_eq!(run_due(&mut release, 299), []);
    let mut seen = Vec::new();
    for step in 1..=5 {
        assert_eq!(run_due(&mut release, 300 * step), [Due::Step]);
        seen.push(weight(&release));
        assert_eq!(i64::from(state(&release).step), step + 1);
    }
    assert_eq!(seen, [5.0, 10.0, 25.0, 50.0, 100.0]);
    assert_eq!(run_due(&mut release, 1_800), [Due::Promote]);
    assert_eq!(
        (release.stable.as_deref(), &release.candidate),
        (Some("2"), &None)
    );
    assert_eq!(state(&release).phase, Phase::Steady);
    let previous = state(&release)
        .previous
        .clone()
        .expect("the version before");
    assert_eq!(
        (previous.version.as_str(), previous.until),
        ("1", at(2_400))
    );
    assert!(
        release.plan.is_some(),
        "the next candidate follows the same plan"
    );
}

#[test]
fn a_plan_that_must_not_promote_waits_for_people() {
    for plan in [
        json!({ "steps": [50, 100], "hold_s": 10, "promote": false }),
        json!({ "steps": [20, 50], "hold_s": 10 }),
    ] {
        let mut release = canary(&plan);
        assert_eq!(run_due(&mut release, 10), [Due::Step]);
        assert_eq!(run_due(&mut release, 20), [Due::Wait]);
        assert_eq!(state(&release).phase, Phase::Waiting);
        assert_eq!(run_due(&mut release, 100_000), []);
        release
            .promote(at(100_000), None)
            .expect("it may be promoted");
        assert_eq!(release.stable.as_deref(), Some("2"));
    }
}

#[test]
fn the_clock_of_a_pause_stands_still() {
    let mut release = canary(&json!({ "hold_s": 100 }));
    release.pause(at(70)).expect("it goes on");
    assert_eq!(run_due(&mut release, 10_000), []);
    assert_eq!(weight(&release), 1.0);
    assert_eq!(
        release.pause(at(71)).unwrap_err().code(),
        "gateway.release_phase"
    );
    release.resume(at(10_000)).expect("it is paused");
    assert_eq!(
        release.hold_ends(),
        Some(at(10_030)),
        "30 of 100 s were left"
    );
    release.pause(at(10_010)).expect("it goes on");
    release.resume(at(10_020)).expect("it is paused");
    assert_eq!(release.hold_ends(), Some(at(10_040)));
    assert_eq!(run_due(&mut release, 10_039), []);
    assert_eq!(run_due(&mut release, 10_040), [Due::Step]);
    assert_eq!(
        release.hold_ends(),
        Some(at(10_140)),
        "a new step holds in full"
    );
    assert!(release.resume(at(10_041)).is_err());
}

#[test]
fn a_step_by_hand_moves_a_paused_release_and_leaves_it_paused() {
    let mut release = canary(&json!({}));
    release.pause(at(1)).expect("it goes on");
    release.step(at(2)).expect("there is a next one");
    assert_eq!(
        (weight(&release), state(&release).phase),
        (5.0, Phase::Paused)
    );
    assert_eq!(run_due(&mut release, 100_000), []);
    for wanted in [10.0, 25.0, 50.0, 100.0] {
        release.step(at(3)).expect("there is a next one");
        assert_eq!(weight(&release), wanted);
    }
    assert_eq!(release.step(at(4)), Err(Refused::LastStep));
}

#[test]
fn without_a_plan_people_step_along_the_usual_weights() {
    let mut release = saved(json!({ "stable": "1", "candidate": { "version": "2", "weight": 7 } }));
    assert_eq!(state(&release).phase, Phase::Manual);
    assert_eq!(run_due(&mut release, 100_000), []);
    release.step(at(1)).expect("there is a next one");
    assert_eq!(
        (weight(&release), state(&release).phase),
        (10.0, Phase::Manual)
    );
    let mut steady = saved(json!({ "stable": "1" }));
    assert_eq!(steady.step(at(1)), Err(Refused::NoCandidate));
    assert_eq!(steady.promote(at(1), None), Err(Refused::NoCandidate));
    assert_eq!(steady.abort(at(1), None), Err(Refused::NoCandidate));
    assert_eq!(steady.roll_back(at(1)), Err(Refused::NoPrevious));
}

#[test]
fn a_candidate_that_nobody_runs_is_not_brought_further() {
    let release = canary(&json!({ "hold_s": 10 }));
    let nobody = World {
        candidate_ready: false,
        ..world(1_000)
    };
    assert_eq!(
        release.due(&nobody),
        Some(Err(Hindrance::CandidateNotReady))
    );
}

#[test]
fn a_plan_may_wait_for_traffic() {
    let few = World {
        requests: 99,
        ..world(1_000)
    };
    let patient = canary(&json!({ "hold_s": 10, "wait_for_traffic": true }));
    assert_eq!(patient.due(&few), Some(Err(Hindrance::TooFewRequests)));
    assert_eq!(patient.due(&world(1_000)), Some(Ok(Due::Step)));
    let hasty = canary(&json!({ "hold_s": 10 }));
    assert_eq!(hasty.due(&few), Some(Ok(Due::Step)));
}

#[test]
fn an_abort_takes_everything_and_a_step_begins_anew() {
    let mut release = canary(&json!({ "hold_s": 10 }));
    run_due(&mut release, 10);
    let run = state(&release).run;
    let numbers = Numbers {
        measured: 5.0,
        limit: 1.0,
        candidate: Default::default(),
        stable: Default::default(),
    };
    release
        .abort(at(12), Some((Guard::ErrorRate, numbers)))
        .expect("it goes on");
    assert_eq!(
        (weight(&release), state(&release).phase),
        (0.0, Phase::Aborted)
    );
    let stopped = state(&release).stopped.clone().expect("why it was stopped");
    assert_eq!(
        (stopped.guard, stopped.weight),
        (Some(Guard::ErrorRate), 5.0)
    );
    assert_eq!(
        stopped.numbers,
        Some(numbers),
        "the numbers that decided are kept"
    );
    assert_eq!(run_due(&mut release, 100_000), []);
    assert_eq!(release.promote(at(13), None), Err(Refused::Aborted));
    assert!(release.abort(at(13), None).is_err());
    assert!(release.pause(at(13)).is_err());
    release.step(at(14)).expect("it begins anew");
    assert_eq!(
        (weight(&release), state(&release).phase),
        (1.0, Phase::Progressing)
    );
    assert_ne!(
        state(&release).run,
        run,
        "what was counted before is not held against it"
    );
    assert_eq!(state(&release).stopped, None);
}

#[test]
fn a_rollback_ends_a_trial_first_and_then_returns_to_the_version_before() {
    let mut release = canary(&json!({}));
    release.promote(at(100), None).expect("a candidate");
    // The next candidate, within the window of the last switch.
    let wish = json!({ "stable": "2", "candidate": { "version": "3", "weight": 10 } });
    let mut release = admit(Some(&release), doc(wish), at(200), None);
    release.roll_back(at(210)).expect("a trial");
    assert_eq!(
        (release.stable.as_deref(), weight(&release)),
        (Some("2"), 0.0)
    );
    assert_eq!(state(&release).phase, Phase::Aborted);
    release.roll_back(at(220)).expect("the window is open");
    assert_eq!(release.stable.as_deref(), Some("1"));
    let previous = state(&release)
        .previous
        .clone()
        .expect("the way forth again");
    assert_eq!(previous.version, "2");
    release.roll_back(at(230)).expect("back and forth");
    assert_eq!(release.stable.as_deref(), Some("2"));
}

#[test]
fn behind_the_window_a_rollback_says_so() {
    let mut release = canary(&json!({}));
    release.rollback_window_s = Some(60);
    release.promote(at(100), None).expect("a candidate");
    assert_eq!(release.due(&world(159)), None);
    let late = release.clone().roll_back(at(160)).unwrap_err();
    assert_eq!(late.code(), "gateway.rollback_window_over");
    assert!(
        late.to_string()
            .contains("version 1 was kept ready until 20"),
        "{late}"
    );
    assert_eq!(run_due(&mut release, 160), [Due::CloseWindow]);
    assert_eq!(run_due(&mut release, 161), []);
    assert_eq!(
        release.roll_back(at(161)).unwrap_err().code(),
        "gateway.rollback_window_over"
    );
    assert_eq!(release.stable.as_deref(), Some("2"), "nothing was changed");
}

#[test]
fn blue_and_green_are_one_word_of_the_document() {
    let blue = saved(json!({ "stable": "1" }));
    assert_eq!(state(&blue).previous, None);
    let green = admit(
        Some(&blue),
        doc(json!({ "stable": "2" })),
        at(50),
        Some("1".into()),
    );
    let previous = state(&green).previous.clone().expect("the version before");
    assert_eq!((previous.version.as_str(), previous.until), ("1", at(650)));
    // The same again changes nothing about the window.
    let again = admit(
        Some(&green),
        doc(json!({ "stable": "2" })),
        at(60),
        Some("2".into()),
    );
    assert_eq!(state(&again).previous.as_ref(), Some(&previous));
    let back = admit(
        Some(&again),
        doc(json!({ "stable": "1" })),
        at(70),
        Some("2".into()),
    );
    assert_eq!(
        state(&back).previous.as_ref().expect("the other").version,
        "2"
    );
    // From what the gateway chose by itself to what is said.
    let said = admit(None, doc(json!({ "stable": "1" })), at(0), Some("2".into()));
    assert_eq!(
        state(&said).previous.as_ref().expect("the other").version,
        "2"
    );
}

#[test]
fn a_candidate_pins_what_serves_now() {
    let wish = json!({ "candidate": { "version": "2", "weight": 5 } });
    let release = admit(None, doc(wish.clone()), at(0), Some("1.4.0".into()));
    assert_eq!(release.stable.as_deref(), Some("1.4.0"));
    assert_eq!(state(&release).previous, None);
    let nobody = admit(None, doc(wish), at(0), None);
    assert_eq!(nobody.stable, None);
    let mut nobody = nobody;
    nobody
        .promote(at(1), Some("1.4.0".into()))
        .expect("a candidate");
    assert_eq!(
        state(&nobody)
            .previous
            .as_ref()
            .expect("what served")
            .version,
        "1.4.0"
    );
}

#[test]
fn a_document_keeps_the_progress_unless_it_changes_it() {
    let mut release = canary(&json!({ "hold_s": 100 }));
    run_due(&mut release, 100);
    let run = state(&release).run;
    let sent = |change: &dyn Fn(&mut ReleaseDoc)| {
        let mut wish = release.clone();
        wish.state = None;
        change(&mut wish);
        admit(Some(&release), wish, at(150), Some("1".into()))
    };
    let same = sent(&|_| {});
    assert_eq!(same, release, "read, unchanged, and sent back");
    let by_hand = sent(&|d| d.candidate.as_mut().unwrap().weight = 30.0);
    assert_eq!((state(&by_hand).step, state(&by_hand).since), (4, at(150)));
    assert_eq!(
        (weight(&by_hand), by_hand.next_weight()),
        (30.0, Some(50.0))
    );
    assert_eq!(state(&by_hand).run, run);
    let stopped = sent(&|d| d.candidate.as_mut().unwrap().weight = 0.0);
    assert_eq!(
        state(&stopped).phase,
        Phase::Aborted,
        "0 is not the first step"
    );
    let manual = sent(&|d| d.plan = None);
    assert_eq!(
        (state(&manual).phase, weight(&manual)),
        (Phase::Manual, 5.0)
    );
    let other = sent(&|d| d.candidate.as_mut().unwrap().version = "3".into());
    assert_eq!(state(&other).phase, Phase::Progressing);
    assert_ne!(state(&other).run, run, "another candidate is another trial");
    let none = sent(&|d| d.candidate = None);
    assert_eq!(state(&none).phase, Phase::Steady);
    let revived = {
        let mut wish = stopped.clone();
        wish.state = None;
        wish.candidate.as_mut().unwrap().weight = 2.0;
        admit(Some(&stopped), wish, at(160), None)
    };
    assert_eq!(
        (state(&revived).phase, weight(&revived)),
        (Phase::Progressing, 2.0)
    );
}

#[test]
fn changes_of_weight_and_ends_of_trials_are_events() {
    let value = |doc: &ReleaseDoc| serde_json::to_value(doc).expect("JSON");
    let begun = canary(&json!({}));
    let told = events("shop", None, Some(&value(&begun)));
    assert_eq!(
        told,
        [(
            "gateway.release.step",
            json!({ "service": "shop", "version": "2", "weight": 1.0 })
        )]
    );
    let mut next = begun.clone();
    next.step(at(1)).expect("a step");
    let told = events("shop", Some(&value(&begun)), Some(&value(&next)));
    assert_eq!(
        told,
        [(
            "gateway.release.step",
            json!({ "service": "shop", "version": "2", "weight": 5.0 })
        )]
    );
    let mut paused = next.clone();
    paused.pause(at(2)).expect("it goes on");
    assert_eq!(
        events("shop", Some(&value(&next)), Some(&value(&paused))),
        []
    );
    let mut ended = next.clone();
    ended.abort(at(3), None).expect("it goes on");
    let told = events("shop", Some(&value(&next)), Some(&value(&ended)));
    assert_eq!(told[0].0, "gateway.release.aborted");
    assert_eq!(told[0].1["version"], "2");
    let mut promoted = next.clone();
    promoted.promote(at(3), None).expect("a candidate");
    let told = events("shop", Some(&value(&next)), Some(&value(&promoted)));
    assert_eq!(
        told,
        [(
            "gateway.release.step",
            json!({ "service": "shop", "version": "2", "weight": 100.0 })
        )]
    );
    assert_eq!(events("shop", Some(&value(&promoted)), None), []);
    let mut back = ended.clone();
    back.stable = Some("0".into());
    let told = events("shop", Some(&value(&ended)), Some(&value(&back)));
    assert_eq!(
        told,
        [(
            "gateway.release.step",
            json!({ "service": "shop", "version": "0", "weight": 100.0 })
        )]
    );
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Step,
    Pause,
    Resume,
    Promote,
    Abort,
    RollBack,
    Time,
    Next,
}

fn verbs() -> impl Strategy<Value = Vec<(Verb, i64)>> {
    let verb = prop_oneof![
        1 => Just(Verb::Step),
        1 => Just(Verb::Pause),
        1 => Just(Verb::Resume),
        1 => Just(Verb::Promote),
        1 => Just(Verb::Abort),
        1 => Just(Verb::RollBack),
        4 => Just(Verb::Time),
        1 => Just(Verb::Next),
    ];
    prop::collection::vec((verb, 0_i64..400), 1..60)
}

proptest! {
    /// Whatever people and time do, the document stays a good one, and what is stopped gets nothing.
    #[test]
    fn no_order_of_verbs_makes_a_bad_document(verbs in verbs()) {
        let mut release = canary(&json!({ "hold_s": 50 }));
        let (mut now, mut next) = (0, 3);
        for (verb, seconds) in verbs {
            now += seconds;
            let before = release.clone();
            let done = match verb {
                Verb::Step => release.step(at(now)),
                Verb::Pause => release.pause(at(now)),
                Verb::Resume => release.resume(at(now)),
                Verb::Promote => release.promote(at(now), None),
                Verb::Abort => release.abort(at(now), None),
                Verb::RollBack => release.roll_back(at(now)),
                Verb::Time => {
                    run_due(&mut release, now);
                    Ok(())
                }
                Verb::Next => {
                    let mut wish = release.clone();
                    wish.candidate = doc(json!({ "candidate": { "version": next.to_string() } })).candidate;
                    next += 1;
                    release = admit(Some(&release), wish, at(now), None);
                    Ok(())
                }
            };
            if done.is_err() {
                prop_assert_eq!(&release, &before, "what is refused changes nothing");
            }
            prop_assert_eq!(release.faults(), []);
            let state = state(&release);
            let share = release.candidate.as_ref().map(|c| c.weight);
            prop_assert_eq!(state.phase == Phase::Steady, share.is_none());
            prop_assert!(state.phase != Phase::Aborted || share == Some(0.0));
            prop_assert!(state.previous.as_ref().is_none_or(|p| Some(&p.version) != release.stable.as_ref()));
            let held = TimeDelta::milliseconds(i64::try_from(state.held_ms).unwrap());
            prop_assert!(state.since <= at(now) && held <= TimeDelta::seconds(now));
            let text = serde_json::to_string(&release).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<ReleaseDoc>(&text).expect("a release"), &release);
        }
    }
}
