//! Visits every state of the model to a stated depth.

use stateright::{Checker, Model, Property};

use super::{Holder, Kind, TRANSIT, World};

/// The bounds of the search: how many requests and responses are on their way at the same time, how
/// many sessions there are, and how far time and generations go.
#[derive(Clone, Copy)]
struct Bounds {
    thief: bool,
    lazy: bool,
    /// Every request is a visit, and no session is ended from elsewhere. There are fewer states, so
    /// the search goes deeper.
    only_visits: bool,
    in_flight: usize,
    sessions: usize,
    horizon: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Send(Holder, Kind),
    /// One call of the store.
    Serve(usize),
    Write(usize),
    Deliver(usize),
    Lose(usize),
    CloseBrowser,
    Steal,
    Flush,
    Wait(u32),
    /// The session is ended from elsewhere.
    Revoke,
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.lazy)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let on_its_way = world.requests.len() + world.responses.len();
        if on_its_way < self.in_flight {
            actions.push(Action::Send(Holder::Browser, Kind::Visit));
            if !self.only_visits {
                actions.push(Action::Send(Holder::Browser, Kind::Confirm));
                actions.push(Action::Send(Holder::Browser, Kind::LogOut));
            }
            if world.records.len() + world.requests.len() < self.sessions {
                actions.push(Action::Send(Holder::Browser, Kind::LogIn));
            }
            if self.thief && !world.thief.ids().is_empty() {
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
        if self.thief && world.thief != world.browser {
            actions.push(Action::Steal);
        }
        if !world.marks.is_empty() {
            actions.push(Action::Flush);
        }
        if !self.only_visits && world.records.iter().any(|record| record.ended.is_none()) {
            actions.push(Action::Revoke);
        }
        for time in [TRANSIT, 2 * TRANSIT + 1] {
            if world.may_pass(time) {
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
        world.now <= super::START + self.horizon
            && world.records.iter().all(|record| record.generation <= 3)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(
                "what has ended is never taken for somebody",
                |_: &Self, world: &World| !world.revived,
            ),
            Property::always(
                "of one browser's sessions at most one lives",
                |_: &Self, world: &World| {
                    world.records.iter().filter(|record| record.ended.is_none()).count() <= 1
                },
            ),
            Property::always(
                "what was superseded and seen hands out nothing",
                |_: &Self, world: &World| !world.handed_out,
            ),
            Property::sometimes("a generation is seen", |_: &Self, world: &World| {
                world.records.iter().any(|record| record.seen_at.is_some())
            }),
        ];
        if self.in_flight > 1 {
            properties.push(Property::sometimes("a race is lost", |_: &Self, world: &World| {
                world.lost_race
            }));
        }
        if self.thief && self.only_visits {
            properties.push(Property::sometimes("a replay is found", |_: &Self, world: &World| {
                world.replayed
            }));
        }
        if !self.thief {
            properties
                .push(Property::always("nobody honest replays", |_: &Self, world: &World| {
                    !world.replayed
                }));
            properties
                .push(Property::always("nobody honest is forgotten", |_: &Self, world: &World| {
                    !world.forgotten
                }));
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
    thief: false,
    lazy: false,
    only_visits: false,
    in_flight: 2,
    sessions: 2,
    horizon: 14,
};

#[test]
fn an_honest_browser_is_neither_forgotten_nor_suspected() {
    check(WIDE, 11);
    check(Bounds { lazy: true, ..WIDE }, 11);
    check(Bounds { in_flight: 3, sessions: 1, ..WIDE }, 10);
    check(Bounds { only_visits: true, sessions: 1, ..WIDE }, 17);
}

#[test]
fn a_thief_is_found_and_never_gets_what_came_after() {
    check(Bounds { thief: true, sessions: 1, ..WIDE }, 11);
    check(Bounds { thief: true, only_visits: true, in_flight: 1, sessions: 1, ..WIDE }, 24);
}
