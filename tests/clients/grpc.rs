//! gRPC: clients of tonic and of gRPC-Web, guards around a service and in its methods.

use std::net::SocketAddr;
use std::pin::Pin;

use futures_util::Stream;
use http::{HeaderMap, Method, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_web::{GrpcWebClientLayer, GrpcWebLayer};
use tower::ServiceBuilder;
use tower::util::MapRequestLayer;
use tower_http::cors::CorsLayer;
use tower_keep::client::{ClientAddr, SessionProtection};
use tower_keep::guard::Guard;
use tower_keep::{Account, AuthSession};
use tower_keep_tests::Site;

use crate::cases::{CASES, Case, begin, cookies_after_login, finish, start_site, start_site_with};

/// A service whose methods have guards of their own. The name of a service that a client asks about
/// chooses the guard.
struct Guarded {
    recent: Guard<Account>,
    notch_only: Guard<Account>,
}

type Updates = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for Guarded {
    type WatchStream = Updates;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.get_ref().service.as_str() {
            "recent" => self.recent.check_tonic(&request).await?,
            "notch" => self.notch_only.check_tonic(&request).await?,
            _ => {}
        }
        let auth = AuthSession::<Account>::from_tonic(&request)?;
        if request.get_ref().service == "address" {
            return Ok(Response::new(status_of(auth.client_addr().is_some())));
        }
        Ok(Response::new(status_of(auth.user().await?.is_some())))
    }

    /// Logs steve in, and says so in the stream.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Updates>, Status> {
        let auth = AuthSession::<Account>::from_tonic(&request)?;
        auth.log_in(tower_keep_tests::account("steve")).await?;
        let update = status_of(auth.user().await?.is_some());
        Ok(Response::new(Box::pin(futures_util::stream::iter([Ok(update)]))))
    }
}

fn status_of(is_logged_in: bool) -> HealthCheckResponse {
    let status = if is_logged_in { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

/// Says which client has sent the request, as the docs of the crate show it.
fn add_address(mut request: http::Request<tonic::body::Body>) -> http::Request<tonic::body::Body> {
    let info = request.extensions().get::<TcpConnectInfo>();
    if let Some(address) = info.and_then(TcpConnectInfo::remote_addr) {
        request.extensions_mut().insert(ClientAddr(address.ip()));
    }
    request
}

/// Where the layers stand that translate gRPC-Web, and whether a guard is around the service.
#[derive(Clone, Copy, Debug)]
struct Setup {
    translates_outside: bool,
    is_guarded: bool,
}

const SETUPS: [Setup; 4] = [
    Setup { translates_outside: true, is_guarded: true },
    Setup { translates_outside: true, is_guarded: false },
    Setup { translates_outside: false, is_guarded: true },
    Setup { translates_outside: false, is_guarded: false },
];

/// Serves the methods of [`Guarded`] with tonic. Dropping the tasks stops the server.
async fn serve(site: &Site, setup: Setup) -> (SocketAddr, JoinSet<()>) {
    let auth_layer = &site.auth_layer;
    let service = HealthServer::new(Guarded {
        recent: auth_layer.require_fresh_within(std::time::Duration::from_secs(600)),
        notch_only: auth_layer.require_user(|user| user.login_name() == "notch"),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let incoming = TcpIncoming::from(listener);
    let guard =
        auth_layer.require_login().with_exempt_grpc_methods(["/grpc.health.v1.Health/Watch"]);
    let mut tasks = JoinSet::new();
    let cors = CorsLayer::permissive().expose_headers([
        "grpc-status".parse().expect("a name"),
        "grpc-message".parse().expect("a name"),
    ]);
    let builder = Server::builder().accept_http1(true).layer(MapRequestLayer::new(add_address));
    let auth_layer = auth_layer.clone();
    match (setup.translates_outside, setup.is_guarded) {
        (true, true) => {
            let mut builder = builder.layer(cors).layer(GrpcWebLayer::new()).layer(auth_layer);
            let server = builder.add_service(guard.layer(service));
            tasks.spawn(async { server.serve_with_incoming(incoming).await.expect("it serves") });
        }
        (true, false) => {
            let mut builder = builder.layer(cors).layer(GrpcWebLayer::new()).layer(auth_layer);
            let server = builder.add_service(service);
            tasks.spawn(async { server.serve_with_incoming(incoming).await.expect("it serves") });
        }
        (false, true) => {
            let mut builder = builder.layer(cors).layer(auth_layer).layer(GrpcWebLayer::new());
            let server = builder.add_service(guard.layer(service));
            tasks.spawn(async { server.serve_with_incoming(incoming).await.expect("it serves") });
        }
        (false, false) => {
            let mut builder = builder.layer(cors).layer(auth_layer).layer(GrpcWebLayer::new());
            let server = builder.add_service(service);
            tasks.spawn(async { server.serve_with_incoming(incoming).await.expect("it serves") });
        }
    }
    (address, tasks)
}

/// Calls `Check` with tonic's client over HTTP/2, or with its client of gRPC-Web over HTTP/1.1.
async fn check(
    address: SocketAddr,
    is_web: bool,
    service: &str,
    metadata: &[(&'static str, &str)],
) -> Result<bool, Status> {
    let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
    for (name, value) in metadata.iter().filter(|(_, value)| !value.is_empty()) {
        request.metadata_mut().insert(*name, value.parse().expect("metadata"));
    }
    let uri = format!("http://{address}");
    let response = if is_web {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let client = ServiceBuilder::new().layer(GrpcWebClientLayer::new()).service(client);
        HealthClient::with_origin(client, uri.parse().expect("a URI")).check(request).await?
    } else {
        let endpoint = Endpoint::try_from(uri).expect("a URI");
        let channel = endpoint.connect().await.expect("the server listens");
        HealthClient::new(channel).check(request).await?
    };
    Ok(response.into_inner().status() == ServingStatus::Serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_grpc_and_of_grpc_web_get_a_status_in_every_case() {
    // The cookies are from a browser, which is another client.
    let site =
        start_site_with(|builder| builder.with_session_protection(SessionProtection::None)).await;
    for setup in SETUPS {
        let (address, _tasks) = serve(&site, setup).await;
        for case in CASES {
            let (service, code) = match case {
                Case::NotLoggedIn if setup.is_guarded => ("", Code::Unauthenticated),
                Case::NotLoggedIn => ("notch", Code::Unauthenticated),
                Case::NotFresh => ("recent", Code::Unauthenticated),
                Case::Forbidden => ("notch", Code::PermissionDenied),
                Case::StoreFailed => ("", Code::Unavailable),
            };
            let cookies = begin(case, &site).await;
            for is_web in [false, true] {
                println!("{case:?}, {setup:?}, gRPC-Web: {is_web}");
                let metadata = [("cookie", cookies.as_str())];
                let status = check(address, is_web, service, &metadata).await.unwrap_err();
                assert_eq!(status.code(), code, "{status:?}");
                let metadata = |name| {
                    let value = status.metadata().get(name)?.to_str();
                    Some(value.expect("text").to_owned())
                };
                assert_eq!(metadata("problem-type").as_deref(), Some(case.problem()), "{status:?}");
                let max_age = (case == Case::NotFresh).then_some("600");
                assert_eq!(metadata("problem-max-age").as_deref(), max_age, "{status:?}");
                let says_so = status.message().contains("re-authenticate");
                assert_eq!(says_so, case == Case::NotFresh, "{status:?}");
            }
            finish(&site);
        }
        let cookies = cookies_after_login(&site, "user=notch").await;
        for is_web in [false, true] {
            for service in ["", "recent", "notch", "address"] {
                let is_logged_in = check(address, is_web, service, &[("cookie", &cookies)]).await;
                assert!(is_logged_in.unwrap(), "{service}, {setup:?}, gRPC-Web: {is_web}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_token_and_a_request_loader_authenticate_clients_of_grpc() {
    let site = start_site_with(|builder| {
        builder.with_sessions().with_bearer_sessions(true).with_request_loader(
            tower_keep::loader::ApiKey::new(
                "x-api-key".parse().unwrap(),
                |name: String| async move {
                    Ok(Some(std::sync::Arc::new(tower_keep_tests::account(&name))))
                },
            ),
        )
    })
    .await;
    let token = site.browser().get("/token?user=notch").await.text();
    let (address, _tasks) = serve(&site, SETUPS[0]).await;
    let authorization = format!("Bearer {token}");
    for is_web in [false, true] {
        for service in ["", "recent", "notch"] {
            let metadata = [("authorization", authorization.as_str())];
            assert!(check(address, is_web, service, &metadata).await.unwrap());
        }
        let metadata = [("authorization", "Bearer tkb_junk")];
        let status = check(address, is_web, "", &metadata).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(check(address, is_web, "notch", &[("x-api-key", "notch")]).await.unwrap());
        let status = check(address, is_web, "recent", &[("x-api-key", "notch")]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exempt_method_is_open_and_can_log_in() {
    let site = start_site().await;
    let (address, _tasks) = serve(&site, SETUPS[0]).await;
    let endpoint = Endpoint::try_from(format!("http://{address}")).expect("a URI");
    let mut client = HealthClient::new(endpoint.connect().await.expect("the server listens"));
    let response = client.watch(HealthCheckRequest::default()).await.unwrap();
    let metadata: &MetadataMap = response.metadata();
    let cookie = metadata.get("set-cookie").expect("a login").to_str().expect("text");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let update = response.into_inner().message().await.unwrap();
    assert_eq!(update, Some(status_of(true)));
    assert!(check(address, false, "", &[("cookie", &cookie)]).await.unwrap());
    let anonymous = check(address, false, "", &[]).await.unwrap_err();
    assert_eq!(anonymous.code(), Code::Unauthenticated, "all other methods are guarded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_is_not_inside_the_layer_says_so() {
    let site = start_site().await;
    let service = HealthServer::new(Guarded {
        recent: site.auth_layer.require_fresh(),
        notch_only: site.auth_layer.require_login(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = Server::builder().add_service(service);
    let mut tasks = JoinSet::new();
    let incoming = TcpIncoming::from(listener);
    tasks.spawn(async { server.serve_with_incoming(incoming).await.expect("it serves") });
    for service in ["", "recent"] {
        let status = check(address, false, service, &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains("Server::builder().layer(auth_layer)"), "{status:?}");
    }
}

/// The bytes on the wire, as a browser's client of gRPC-Web reads them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_can_read_the_status_of_grpc_web() {
    let site = start_site().await;
    let (address, _tasks) = serve(&site, SETUPS[0]).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{address}/grpc.health.v1.Health/Check");
    for content_type in ["application/grpc-web+proto", "application/grpc-web-text+proto"] {
        let request = client
            .request(Method::POST, &url)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ORIGIN, "https://app.example")
            .body(if content_type.contains("text") { "AAAAAAA=" } else { "\0\0\0\0\0" });
        let response = request.send().await.expect("a response");
        let headers: &HeaderMap = response.headers();
        let get =
            |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!((get("grpc-status"), get("cache-control")), ("16", "no-store"));
        assert!(get("access-control-expose-headers").contains("grpc-status"));
        assert!(get("content-type").starts_with("application/grpc-web"), "{}", get("content-type"));
    }
}
