//! HTTP requests over real connections.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tower::Service;

/// A client that sends its requests to one server, or to several in turn.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Body>,
    servers: Arc<[SocketAddr]>,
    /// How many requests were sent.
    sent: Arc<AtomicUsize>,
}

impl Http {
    /// Creates a client that sends its requests to this server.
    pub fn to(server: SocketAddr) -> Self {
        Self::to_each_of(vec![server])
    }

    /// Creates a client that sends each request to the next of these servers.
    pub fn to_each_of(servers: Vec<SocketAddr>) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, servers: servers.into(), sent: Arc::default() }
    }

    /// Does the same as [`to`](Self::to), over HTTP/2, which the server must accept at once.
    pub fn over_http2_to(server: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { client, servers: [server].into(), sent: Arc::default() }
    }
}

impl Service<Request<String>> for Http {
    type Response = Response<Incoming>;
    type Error = hyper_util::client::legacy::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<String>) -> Self::Future {
        let turn = self.sent.fetch_add(1, Ordering::Relaxed);
        let server = self.servers[turn % self.servers.len()];
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let uri = Uri::builder()
            .scheme("http")
            .authority(server.to_string())
            .path_and_query(target)
            .build();
        *request.uri_mut() = uri.expect("the path and the query of a request are valid in a URI");
        Box::pin(self.client.request(request.map(Body::from)))
    }
}

/// Sends these bytes on a new connection, and returns everything that the server sends back.
pub async fn send_raw(server: SocketAddr, request: &[u8]) -> String {
    send_raw_from(server.ip(), server, request).await
}

/// Does the same as [`send_raw`], on a connection from this loopback address.
pub async fn send_raw_from(client: IpAddr, server: SocketAddr, request: &[u8]) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(client, 0)).expect("a free port on a loopback address");
    let mut stream = socket.connect(server).await.expect("the server listens");
    // The server may reject a large request before it has read all of it.
    let _ = stream.write_all(request).await;
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).into_owned()
}
