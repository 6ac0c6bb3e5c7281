//! A cluster in simulated time under random trouble (§12 no. 6 of the specification): lost messages, pauses,
//! partitions, clocks that are set. `PORTICO_CHAOS_SEEDS` says how many worlds are played.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::Duration;
use portico_base::{Clock as _, ManualClock};
use portico_contract::directory::{Directory, Instance, InstanceState};
use portico_db::testing::{TestDb, postgres, sqlite};
use rand_like::Dice;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{House, migrate, operator};
use crate::{beats, follow, life};

/// One step of simulated time.
const STEP_MS: u64 = 250;
/// Trouble happens for so long, then everything is healed.
const TROUBLE_MS: u64 = 60_000;
/// Programs stay as they are for so long behind it: silence has to be told from life.
const CALM_MS: u64 = 160_000;
const BEAT_MS: u64 = 30_000;
/// A paused replica's shards go to another one after this time (RG-21: within 20 s).
const LEASE_MS: u64 = 15_000;
/// Time between two looks of a replica that hears of nothing: at least, and how much more at most.
const POLL_MS: (u64, u64) = (300, 500);
const EVERY_10_S: u64 = 10_000;
const EVERY_30_S: u64 = 30_000;
const REPLICAS: usize = 3;
const SERVICES: u64 = 3;
/// Worlds on one database.
const WORLDS: u64 = 10;

/// The same numbers for the same seed, on every machine.
mod rand_like {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    pub(super) struct Dice(pub u64);

    impl Dice {
        pub(super) fn below(&mut self, most: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % most
        }

        /// True once in `of` times.
        pub(super) fn once_in(&mut self, of: u64) -> bool {
            self.below(of) == 0
        }
    }
}

struct Replica {
    house: House,
    clock: ManualClock,
    paused_until: u64,
    paused_since: u64,
    /// Messages of the bus are lost until then.
    deaf_until: u64,
    /// Heartbeats of others are not carried until then.
    cut_until: u64,
    poll_at: u64,
}

impl Replica {
    fn is_running(&self, now: u64) -> bool {
        now >= self.paused_until
    }

    fn seq(&self) -> u64 {
        self.house.core.model.read().seq
    }
}

struct Program {
    id: String,
    service: String,
    port: u16,
    alive: bool,
    registered: u64,
    deregistered: Option<u64>,
    beat_at: u64,
}

struct World {
    seed: u64,
    dice: Dice,
    now: u64,
    replicas: Vec<Replica>,
    /// The replica that holds all leases.
    owner: usize,
    programs: Vec<Program>,
    /// Heartbeats as the shared state knows them.
    shared: BTreeMap<String, i64>,
    changed: u64,
    newest: u64,
}

/// Whom the gateway would send requests to: those that are ready, else those that are late.
fn targets<'d>(directory: &'d Directory, service: &str) -> Vec<&'d Instance> {
    let found = directory
        .services
        .values()
        .filter(|s| *s.key.name == *service)
        .flat_map(|s| s.instances.iter());
    let of = |state| {
        let all = found.clone().map(|i| &**i);
        all.filter(move |i| i.state == state).collect::<Vec<_>>()
    };
    let ready = of(InstanceState::Ready);
    if ready.is_empty() {
        of(InstanceState::Late)
    } else {
        ready
    }
}

/// Everything that replicas must agree on.
fn summary(house: &House) -> BTreeSet<(String, Uuid, &'static str, u16, u16)> {
    let directory = house.directory();
    let all = directory.services.values().flat_map(|s| {
        s.instances.iter().map(|i| {
            (
                s.key.name.to_string(),
                i.id,
                i.state.as_str(),
                i.weight,
                i.port,
            )
        })
    });
    all.collect()
}

impl World {
    async fn new(db: &TestDb, seed: u64) -> Self {
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let clock = ManualClock::at(db.clock.now());
            let name = format!("r{number}");
            let house = House::build(db.another().await, clock.clone(), &name, Vec::new()).await;
            if number > 0 {
                house.core.shards.let_go();
            }
            replicas.push(Replica {
                house,
                clock,
                paused_until: 0,
                paused_since: 0,
                deaf_until: 0,
                cut_until: 0,
                poll_at: 0,
            });
        }
        let newest = replicas[0].seq();
        Self {
            seed,
            dice: Dice(seed),
            now: 0,
            replicas,
            owner: 0,
            programs: Vec::new(),
            shared: BTreeMap::new(),
            changed: 0,
            newest,
        }
    }

    fn any_running(&mut self) -> usize {
        loop {
            let at = self.dice.below(REPLICAS as u64) as usize;
            if self.replicas[at].is_running(self.now) {
                return at;
            }
        }
    }

    async fn play(mut self) {
        while self.now < TROUBLE_MS {
            if self.dice.once_in(8) {
                self.trouble().await;
            }
            self.step().await;
        }
        for replica in &mut self.replicas {
            replica.deaf_until = 0;
            replica.cut_until = 0;
            replica.paused_until = replica.paused_until.min(self.now + 1_000);
        }
        while self.now < TROUBLE_MS + CALM_MS || self.now < self.changed + 36_000 {
            self.step().await;
            assert!(
                self.now < 500_000,
                "seed {}: it never comes to rest",
                self.seed
            );
        }
        self.check_the_end();
        for replica in &self.replicas {
            replica.house.core.db.close().await;
        }
    }

    async fn trouble(&mut self) {
        let (now, at) = (self.now, self.any_running());
        match self.dice.below(12) {
            0..=3 => self.start(at).await,
            4 => {
                if let Some(p) = self.any_program() {
                    self.programs[p].alive = false;
                }
            }
            5 | 6 => self.deregister(at).await,
            7 => {
                let others =
                    (0..REPLICAS).filter(|r| *r != at && self.replicas[*r].is_running(now));
                if others.count() > 0 {
                    let length = 1_000 + self.dice.below(40_000);
                    let replica = &mut self.replicas[at];
                    (replica.paused_since, replica.paused_until) = (now, now + length);
                }
            }
            8 | 9 => self.replicas[at].deaf_until = now + 1_000 + self.dice.below(30_000),
            10 => self.replicas[at].cut_until = now + 1_000 + self.dice.below(60_000),
            _ => {
                let by = Duration::milliseconds(1_000 + self.dice.below(3_600_000).cast_signed());
                let by = if self.dice.once_in(2) { by } else { -by };
                self.replicas[at].clock.advance(by);
                life::forgive(&self.replicas[at].house.core, by);
            }
        }
    }

    fn any_program(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.programs.len())
            .filter(|p| self.programs[*p].deregistered.is_none())
            .collect();
        let count = open.len() as u64;
        (count > 0).then(|| open[self.dice.below(count) as usize])
    }

    async fn start(&mut self, at: usize) {
        let service = format!("s{}-{}", self.seed, self.dice.below(SERVICES));
        let port = 1_000 + self.programs.len() as u16;
        let id = register(&self.replicas[at].house, &service, port).await;
        self.programs.push(Program {
            id,
            service,
            port,
            alive: true,
            registered: self.now,
            deregistered: None,
            beat_at: self.now + self.dice.below(BEAT_MS),
        });
    }

    async fn deregister(&mut self, at: usize) {
        let Some(p) = self.any_program() else { return };
        let suffix = if self.dice.once_in(2) {
            "?now=true"
        } else {
            ""
        };
        let path = format!("/services/{}{suffix}", self.programs[p].id);
        let house = &self.replicas[at].house;
        let (status, _) = house.call(&operator(), "DELETE", &path, Value::Null).await;
        // 404: this replica has not heard of it yet, the program would try again.
        if status != 404 {
            assert!(status < 300, "seed {}: {status}", self.seed);
            self.programs[p].deregistered = Some(self.now);
            self.programs[p].alive = false;
        }
    }

    async fn step(&mut self) {
        self.now += STEP_MS;
        for replica in &self.replicas {
            replica
                .clock
                .advance(Duration::milliseconds(STEP_MS.cast_signed()));
        }
        self.move_leases();
        self.beat().await;
        for at in 0..REPLICAS {
            if self.replicas[at].is_running(self.now) {
                self.work(at).await;
            }
        }
        let newest = self.replicas.iter().map(Replica::seq).max().unwrap_or(0);
        if newest > self.newest {
            (self.newest, self.changed) = (newest, self.now);
        }
        for at in 0..REPLICAS {
            self.check(at);
        }
    }

    fn move_leases(&mut self) {
        let owner = &self.replicas[self.owner];
        if owner.is_running(self.now) || self.now < owner.paused_since + LEASE_MS {
            return;
        }
        // It finds its leases gone when it wakes.
        owner.house.core.shards.let_go();
        self.owner = self.any_running();
        let core = &self.replicas[self.owner].house.core;
        core.shards.hold_all();
        let ids: Vec<Uuid> = core
            .model
            .read()
            .instances()
            .map(|e| e.instance.id)
            .collect();
        core.agenda.touch(ids);
    }

    /// Programs that live tell it to any replica, and register again where they are not known.
    async fn beat(&mut self) {
        for p in 0..self.programs.len() {
            if !self.programs[p].alive || self.now < self.programs[p].beat_at {
                continue;
            }
            let at = self.any_running();
            let program = &mut self.programs[p];
            program.beat_at = self.now + BEAT_MS;
            let replica = &self.replicas[at];
            let (status, _) = replica.house.beat(&operator(), &program.id).await;
            match status {
                200 if self.now >= replica.cut_until => {
                    let told = replica.house.core.heartbeats.known(&program.id);
                    let at_ms = told.expect("a beat that was answered is shared").at_ms;
                    let shared = self.shared.entry(program.id.clone()).or_default();
                    *shared = at_ms.max(*shared);
                }
                200 => {}
                404 => program.id = register(&replica.house, &program.service, program.port).await,
                other => panic!("seed {}: a heartbeat was answered {other}", self.seed),
            }
        }
    }

    /// What a process does by itself.
    async fn work(&mut self, at: usize) {
        let now = self.now;
        let newest = self.replicas.iter().map(Replica::seq).max().unwrap_or(0);
        let heard = now >= self.replicas[at].deaf_until && !self.dice.once_in(10);
        let poll = POLL_MS.0 + self.dice.below(POLL_MS.1);
        let replica = &mut self.replicas[at];
        let core = &replica.house.core;
        if replica.seq() < newest && (heard || now >= replica.poll_at) {
            follow::step(core).await.expect("the database answers");
        }
        if now >= replica.poll_at {
            replica.poll_at = now + poll;
        }
        replica.house.tick().await;
        let due = |every: u64| now / every != (now - STEP_MS) / every;
        if due(EVERY_10_S) {
            beats::flush(core).await.expect("the database answers");
            if now >= replica.cut_until {
                for (id, at_ms) in &self.shared {
                    let _ = core.heartbeats.touch(id, *at_ms, Bytes::new());
                }
            }
            let since = replica.clock.now() - Duration::seconds(120);
            beats::learn(core, since)
                .await
                .expect("the database answers");
        }
        if due(EVERY_30_S) {
            let healed = follow::resync(core).await.expect("the database answers");
            assert_eq!(healed, 0, "seed {}: {at} differed from the rows", self.seed);
        }
    }

    /// What must hold for whoever asks this replica's gateway now.
    fn check(&self, at: usize) {
        let replica = &self.replicas[at];
        if !replica.is_running(self.now) || self.now < replica.paused_until + 1_000 {
            return;
        }
        let directory = replica.house.directory();
        let context = |p: &Program| {
            let states: Vec<_> = summary(&replica.house).into_iter().collect();
            format!(
                "seed {} at {} ms, replica {at}: {} of {}, {states:?}",
                self.seed, self.now, p.id, p.service
            )
        };
        for program in &self.programs {
            let targets = targets(&directory, &program.service);
            let id = Uuid::parse_str(&program.id).expect("an id");
            if program.deregistered.is_some_and(|t| self.now >= t + 1_000) {
                assert!(
                    targets.iter().all(|i| i.id != id),
                    "traffic to one that left: {}",
                    context(program)
                );
            }
            let lives = program.alive && program.deregistered.is_none();
            if lives && self.now >= program.registered + 1_000 {
                assert!(
                    !targets.is_empty(),
                    "no traffic while one lives: {}",
                    context(program)
                );
            }
        }
        if self.now >= self.changed + 35_000 {
            assert_eq!(
                summary(&replica.house),
                summary(&self.replicas[self.owner].house),
                "seed {}: replicas {at} and {} disagree",
                self.seed,
                self.owner
            );
        }
    }

    /// Long after the last trouble every replica knows who lives.
    fn check_the_end(&self) {
        for (at, replica) in self.replicas.iter().enumerate() {
            let directory = replica.house.directory();
            for program in &self.programs {
                let id = Uuid::parse_str(&program.id).expect("an id");
                let ready = targets(&directory, &program.service)
                    .iter()
                    .any(|i| i.id == id && i.state == InstanceState::Ready);
                let lives = program.alive && program.deregistered.is_none();
                assert_eq!(
                    ready, lives,
                    "seed {}, replica {at}: {} of {}",
                    self.seed, program.id, program.service
                );
            }
        }
    }
}

async fn register(house: &House, service: &str, port: u16) -> String {
    let body =
        json!({"name": service, "port": port, "host": "127.0.0.1", "heartbeat_s": BEAT_MS / 1_000});
    let (status, answer) = house.register(&operator(), body).await;
    assert!(status == 200 || status == 201, "{answer}");
    answer["id"].as_str().expect("an id").to_owned()
}

async fn worlds(seeds: std::ops::Range<u64>, on: impl AsyncFn() -> Option<TestDb>) {
    let mut left = seeds.peekable();
    while left.peek().is_some() {
        let Some(db) = on().await else { return };
        migrate(&db).await;
        for seed in left.by_ref().take(WORLDS as usize) {
            Box::pin(World::new(&db, seed)).await.play().await;
        }
        db.finish().await;
    }
}

fn seeds() -> u64 {
    let wished = std::env::var("PORTICO_CHAOS_SEEDS").ok();
    wished.and_then(|n| n.parse().ok()).unwrap_or(60)
}

#[tokio::test]
async fn nobody_is_sent_to_who_left_and_who_lives_is_found() {
    worlds(0..seeds() / 2, async || Some(sqlite().await)).await;
}

#[tokio::test]
async fn the_other_half_of_the_worlds() {
    worlds(seeds() / 2..seeds(), async || Some(sqlite().await)).await;
}

#[tokio::test]
async fn the_same_on_postgresql() {
    worlds(0..4, postgres).await;
}
