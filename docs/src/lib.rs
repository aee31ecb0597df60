//! The guide's code blocks, as tests of this crate. `cargo xtask guide` builds the pages.

macro_rules! pages {
    ($($module:ident $file:literal)*) => {$(
        #[cfg(doctest)]
        #[doc = include_str!(concat!("../guide/", $file))]
        mod $module {}
    )*};
}

pages! {
    index "index.md"
    axum "axum.md"
    users "users.md"
    stores "stores.md"
    own_users "own-users.md"
    life "life.md"
    json_api "json-api.md"
    roles "roles.md"
    step_up "step-up.md"
    throttling "throttling.md"
    websockets "websockets.md"
    grpc "grpc.md"
    areas "areas.md"
    proxies "proxies.md"
    keys "keys.md"
    audit "audit.md"
    testing "testing.md"
    production "production.md"
    adapters "adapters.md"
    axum_login "axum-login.md"
}
