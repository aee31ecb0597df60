//! Visits every state of the model to a stated depth.

use stateright::{Checker, Model, Property};

use super::{Holder, Kind, MAX_TRANSIT, World};

/// The bounds of the search.
#[derive(Clone, Copy)]
struct Bounds {
    has_thief: bool,
    /// Whether seen marks wait for the upkeep.
    has_upkeep: bool,
    /// Every request is a visit, and no session is revoked. There are fewer states, so the search
    /// goes deeper.
    has_only_visits: bool,
    /// At most this many requests and responses exist at the same time.
    max_in_flight: usize,
    max_sessions: usize,
    /// The search ends this many seconds after the start.
    max_seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Send(Holder, Kind),
    /// The server makes one call of the store for this request.
    Serve(usize),
    /// The head of this response is written.
    Write(usize),
    Deliver(usize),
    Lose(usize),
    CloseBrowser,
    /// The thief copies the browser's cookies.
    Steal,
    /// The upkeep writes the seen marks.
    Flush,
    Wait(u32),
    /// The latest session is ended from another device.
    Revoke,
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.has_upkeep)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let in_flight = world.requests.len() + world.responses.len();
        if in_flight < self.max_in_flight {
            actions.push(Action::Send(Holder::Browser, Kind::Visit));
            if !self.has_only_visits {
                actions.push(Action::Send(Holder::Browser, Kind::Confirm));
                actions.push(Action::Send(Holder::Browser, Kind::LogOut));
            }
            if world.records.len() + world.requests.len() < self.max_sessions {
                actions.push(Action::Send(Holder::Browser, Kind::LogIn));
            }
            if self.has_thief && !world.thief.ids().is_empty() {
                actions.push(Action::Send(Holder::Thief, Kind::Visit));
            }
        }
        actions.extend((0..world.requests.len()).map(Action::Serve));
        for (index, response) in world.responses.iter().enumerate() {
            match response.written {
                None => actions.push(Action::Write(index)),
                Some(_) => actions.extend([Action::Deliver(index), Action::Lose(index)]),
            }
        }
        if world.browser.session.is_some() {
            actions.push(Action::CloseBrowser);
        }
        if self.has_thief && world.thief != world.browser {
            actions.push(Action::Steal);
        }
        if !world.seen_marks.is_empty() {
            actions.push(Action::Flush);
        }
        if !self.has_only_visits && world.records.iter().any(|record| record.ended.is_none()) {
            actions.push(Action::Revoke);
        }
        for time in [MAX_TRANSIT, 2 * MAX_TRANSIT + 1] {
            if world.may_wait(time) {
                actions.push(Action::Wait(time));
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Send(from, kind) => world.send(from, kind),
            Action::Serve(index) => world.serve(index),
            Action::Write(index) => world.write(index),
            Action::Deliver(index) => world.deliver(index),
            Action::Lose(index) => drop(world.responses.remove(index)),
            Action::CloseBrowser => world.browser.session = None,
            Action::Steal => world.thief = world.browser,
            Action::Flush => world.flush(),
            Action::Wait(time) => world.now += time,
            Action::Revoke => {
                let (last, now) = (world.records.len() - 1, world.now);
                world.end(last as u8, now, tower_keep_core::EndReason::Revoked, None);
            }
        }
        Some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.now <= super::START + self.max_seconds
            && world.records.iter().all(|record| record.generation <= 3)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("an ended session logs nobody in", |_: &Self, world: &World| {
                !world.has_revived_session
            }),
            Property::always("at most one session is live", |_: &Self, world: &World| {
                world.records.iter().filter(|record| record.ended.is_none()).count() <= 1
            }),
            Property::always(
                "old cookies get no new cookies once the current generation was seen",
                |_: &Self, world: &World| !world.has_renewed_old_cookies,
            ),
            Property::sometimes("a generation is seen", |_: &Self, world: &World| {
                world.records.iter().any(|record| record.seen_at.is_some())
            }),
        ];
        if self.max_in_flight > 1 {
            properties.push(Property::sometimes("a race is lost", |_: &Self, world: &World| {
                world.has_lost_race
            }));
        }
        if self.has_thief && self.has_only_visits {
            properties.push(Property::sometimes("a replay is found", |_: &Self, world: &World| {
                world.has_found_replay
            }));
        }
        if !self.has_thief {
            properties.push(Property::always(
                "without a thief, no replay is found",
                |_: &Self, world: &World| !world.has_found_replay,
            ));
            properties.push(Property::always(
                "without a thief, no login is lost",
                |_: &Self, world: &World| !world.has_lost_login,
            ));
        }
        properties
    }
}

fn check(bounds: Bounds, depth: usize) {
    let checker = bounds.checker().threads(2).target_max_depth(depth).spawn_bfs().join();
    println!("{} states to depth {depth}", checker.unique_state_count());
    checker.assert_properties();
}

const WIDE: Bounds = Bounds {
    has_thief: false,
    has_upkeep: false,
    has_only_visits: false,
    max_in_flight: 2,
    max_sessions: 2,
    max_seconds: 14,
};

#[test]
fn without_a_thief_no_login_is_lost_and_no_replay_is_found() {
    check(WIDE, 11);
    check(Bounds { has_upkeep: true, ..WIDE }, 11);
    check(Bounds { max_in_flight: 3, max_sessions: 1, ..WIDE }, 10);
    check(Bounds { has_only_visits: true, max_sessions: 1, ..WIDE }, 17);
}

#[test]
fn a_replay_is_found_and_a_thief_gets_no_new_cookies() {
    check(Bounds { has_thief: true, max_sessions: 1, ..WIDE }, 11);
    check(
        Bounds {
            has_thief: true,
            has_only_visits: true,
            max_in_flight: 1,
            max_sessions: 1,
            ..WIDE
        },
        24,
    );
}
