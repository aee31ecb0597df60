//! One node of a site, as a program: `node KIND PLACE SETTINGS…`.

use tower_keep_testkit::TestClock;
use tower_keep_tests::StorePlace;
use tower_keep_tests::nodes::{NodeSettings, node_site, serve_node};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let place = StorePlace::from_arguments(&mut arguments);
    let settings = NodeSettings::from_arguments(arguments);
    serve_node(node_site(place.open().await, TestClock::new(), &settings).await).await
}
