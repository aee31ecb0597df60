//! Guessing passwords on four nodes that share a store: exactly as many guesses reach the hash as
//! the limits allow.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use tokio::task::JoinSet;
use tower_keep_tests::Browser;
use tower_keep_tests::nodes::{NodeSettings, Nodes, PASSWORD, address_of_client, user_names};

const NODE: &str = env!("CARGO_BIN_EXE_node");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How many guesses a test makes, from 200 clients or fewer. The emulators of Datastore take long
/// for writes that conflict, so they get fewer.
fn guess_count() -> usize {
    match std::env::var("KEEP_STORE").as_deref() {
        Ok("datastore") => 200,
        Ok("firestore") => 16,
        _ => 10_000,
    }
}

/// Returns a client with this number, and so with its own address. Each of its requests goes to the
/// next node.
fn client(nodes: &Nodes, number: usize) -> Browser {
    let mut browser = nodes.browser();
    browser.set_header(X_FORWARDED_FOR, &address_of_client(number));
    browser
}

/// Sends a password, again if the server had no room for the check.
async fn try_password(
    browser: &mut Browser,
    path: &str,
    login: &str,
    password: &str,
) -> StatusCode {
    loop {
        let response = browser.post(path, &[("login", login), ("password", password)]).await;
        if response.status != StatusCode::SERVICE_UNAVAILABLE {
            return response.status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs 200 clients or fewer at once. Each sends its share of the guesses, for the names in turn.
/// Returns how many guesses for each name reached the hash.
async fn guess(nodes: &Nodes, count: usize, names: &[String], first_client: usize) -> Vec<usize> {
    let clients = count.min(200);
    let guesses_each = count / clients;
    let names: Arc<[String]> = names.into();
    let mut running = JoinSet::new();
    for number in 0..clients {
        let (mut browser, names) = (client(nodes, first_client + number), Arc::clone(&names));
        running.spawn(async move {
            let mut wrong = vec![0; names.len()];
            for turn in 0..guesses_each {
                let index = (number + turn) % names.len();
                match try_password(&mut browser, "/sign-in", &names[index], "a guess").await {
                    StatusCode::UNAUTHORIZED => wrong[index] += 1,
                    StatusCode::TOO_MANY_REQUESTS => {}
                    other => panic!("{}: {other}", names[index]),
                }
            }
            wrong
        });
    }
    let mut sum = vec![0; names.len()];
    while let Some(wrong) = running.join_next().await {
        let wrong = wrong.expect("no client panics");
        sum.iter_mut().zip(wrong).for_each(|(sum, wrong)| *sum += wrong);
    }
    sum
}

/// Returns names of users, and as many names that nobody has.
fn known_and_unknown_names(count: usize) -> Vec<String> {
    let known = user_names().take(count);
    known.chain((0..count).map(|number| format!("nobody{number}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_configured_number_of_guesses_reaches_the_hash() {
    // The clock of each node is five seconds ahead of the one before.
    let nodes = Nodes::start(NODE, 4, NodeSettings::default(), 5).await;
    let names = match guess_count() {
        16 => known_and_unknown_names(1),
        _ => known_and_unknown_names(4),
    };
    // The owner has logged in before, from another address.
    let mut owner = client(&nodes, 1_000);
    assert_eq!(try_password(&mut owner, "/sign-in", "user1", PASSWORD).await, StatusCode::OK);

    let owner_goes_on = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(
                try_password(&mut owner, "/sign-in", "user1", PASSWORD).await,
                StatusCode::OK
            );
            assert_eq!(owner.get("/name").await.text(), "user1");
        }
    };
    let expected = if guess_count() == 16 { 5.min(16 / names.len()) } else { 5 };
    let reached = tokio::select! {
        reached = guess(&nodes, guess_count(), &names, 0) => reached,
        never = owner_goes_on => never,
    };
    assert_eq!(reached, vec![expected; names.len()], "{names:?}");
    if guess_count() == 16 {
        return;
    }
    // The wait has passed on some nodes only: their clocks are ahead. One more guess is allowed,
    // not one for each node, and then the wait is twice as long.
    for (seconds, expected) in [(30, 1), (30, 0), (30, 1)] {
        nodes.move_clocks(seconds).await;
        let reached = guess(&nodes, guess_count().min(1_000), &names, 200).await;
        assert_eq!(reached, vec![expected; names.len()], "{seconds} seconds later");
    }
    // From another device, the owner has to wait, too.
    let mut elsewhere = client(&nodes, 1_001);
    let status = try_password(&mut elsewhere, "/sign-in", "user1", PASSWORD).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    nodes.move_clocks(600).await;
    let status = try_password(&mut elsewhere, "/sign-in", "user1", PASSWORD).await;
    assert_eq!(status, StatusCode::OK);
    // The login has reset the count of the name: five wrong passwords more.
    let one = [names[0].clone()];
    assert_eq!(guess(&nodes, guess_count().min(100), &one, 400).await, [5]);
}

/// Returns a browser that is a known device of the user, without a password.
async fn known_device(nodes: &Nodes, number: usize, user: &str) -> Browser {
    let mut browser = client(nodes, number);
    let response = browser.post(&format!("/device?user={user}"), &[]).await;
    assert_eq!(response.text(), "known");
    browser
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_device_cookies_of_one_user_gain_nothing() {
    let (devices, allowed) = match guess_count() {
        16 => (2, 6),
        200 => (20, 30),
        _ => (1_000, 30),
    };
    let settings = NodeSettings { by_all_devices: allowed, ..NodeSettings::default() };
    let nodes = Nodes::start(NODE, 4, settings, 0).await;
    let mut running = JoinSet::new();
    for number in 0..devices {
        let mut browser = known_device(&nodes, number, "user1").await;
        running.spawn(async move {
            let mut wrong = 0;
            for _ in 0..7 {
                match try_password(&mut browser, "/sign-in", "user1", "a guess").await {
                    StatusCode::UNAUTHORIZED => wrong += 1,
                    StatusCode::TOO_MANY_REQUESTS => {}
                    other => panic!("{other}"),
                }
            }
            wrong
        });
    }
    let wrong: Vec<u32> = running.join_all().await;
    assert!(wrong.iter().all(|wrong| *wrong <= 5), "one device: {wrong:?}");
    assert_eq!(wrong.iter().sum::<u32>(), allowed);
    // Other users are not affected, and the user can still log in elsewhere.
    let mut other = known_device(&nodes, 2_000, "user2").await;
    assert_eq!(try_password(&mut other, "/sign-in", "user2", PASSWORD).await, StatusCode::OK);
    let mut elsewhere = client(&nodes, 2_001);
    assert_eq!(try_password(&mut elsewhere, "/sign-in", "user1", PASSWORD).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_reaches_the_hash_as_often_as_its_limit_allows() {
    let settings = NodeSettings { by_address: 12, ..NodeSettings::default() };
    let nodes = Nodes::start(NODE, 4, settings, 0).await;
    let mut running = JoinSet::new();
    for number in 0..guess_count().min(100) {
        let mut browser = client(&nodes, 7);
        running.spawn(async move {
            let name = format!("name{number}");
            try_password(&mut browser, "/sign-in", &name, "a guess").await
        });
    }
    let statuses = running.join_all().await;
    let wrong = statuses.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count();
    assert_eq!(wrong, 12);
    // Right passwords use up nothing.
    let mut neighbour = client(&nodes, 8);
    for _ in 0..15 {
        neighbour.jar = Default::default();
        let status = try_password(&mut neighbour, "/sign-in", "user1", PASSWORD).await;
        assert_eq!(status, StatusCode::OK);
    }
    let mut same_address = client(&nodes, 7);
    let status = try_password(&mut same_address, "/sign-in", "user2", PASSWORD).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "the address has to wait");
    // A known device of the user does not count by its address.
    let mut known = known_device(&nodes, 7, "user3").await;
    assert_eq!(try_password(&mut known, "/sign-in", "user3", PASSWORD).await, StatusCode::OK);
}
