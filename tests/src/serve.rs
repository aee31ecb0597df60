//! Serves a service on a free loopback port.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::ServiceExt;
use axum::extract::Request;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::Service;

/// A running server. Dropping this stops the server.
#[derive(Debug)]
pub struct Serving {
    /// The address where the server listens.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// Serves a service on a free loopback port.
///
/// # Panics
///
/// Panics if there is no free port.
pub async fn serve<S>(service: S) -> Serving
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        axum::serve(listener, service).await.expect("the server never ends by itself")
    });
    Serving { address, _tasks: tasks }
}
