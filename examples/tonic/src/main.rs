//! Notes over gRPC, with a login. A client logs in with a password and gets a bearer token, which it
//! sends with every call.
//!
//! Run `cargo run -p tonic-example`. The optional argument is the address to listen on.

mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::missing_errors_doc)]
    tonic::include_proto!("notes");
}

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::{Request, Response, Status};
use tower::util::MapRequestLayer;
use tower_keep::client::ClientAddr;
use tower_keep::guard::Guard;
use tower_keep::sign_in::PasswordCheck;
use tower_keep::{Account, Keys, LoginLayer, PasswordSignIn, UserId};
use tower_keep_memory::MemoryStore;

use proto::notes_server::{Notes, NotesServer};
use proto::{
    AddRequest, ClearRequest, LogInReply, LogInRequest, LogOutReply, LogOutRequest, NotesReply,
};

type AuthSession = tower_keep::AuthSession<Account>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = MemoryStore::<Account>::new();
    let auth_layer = LoginLayer::builder(users.clone(), Keys::generate()?)
        .with_sessions()
        .with_bearer_sessions(true)
        .build()?;
    let sign_in = PasswordSignIn::new(&auth_layer, users.clone());
    sign_in.passwords().sign_up(&users, 1, "ada", "analytical engine").await?;
    let notes = NotesService {
        sign_in,
        fresh: auth_layer.require_fresh_within(Duration::from_secs(5 * 60)),
        notes: Arc::default(),
    };
    // Every method except `LogIn` needs a login.
    let guard = auth_layer.require_login().with_exempt_grpc_methods(["/notes.Notes/LogIn"]);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("demo login: ada");
    println!("demo password: analytical engine");
    tokio::spawn(auth_layer.upkeep());
    Server::builder()
        .layer(MapRequestLayer::new(add_client_address))
        .layer(auth_layer)
        .add_service(guard.layer(NotesServer::new(notes)))
        .serve_with_incoming(TcpIncoming::from(listener))
        .await?;
    Ok(())
}

/// Copies the client's address to where the login layer finds it.
fn add_client_address<B>(mut request: http::Request<B>) -> http::Request<B> {
    let info = request.extensions().get::<TcpConnectInfo>();
    if let Some(address) = info.and_then(TcpConnectInfo::remote_addr) {
        request.extensions_mut().insert(ClientAddr(address.ip()));
    }
    request
}

struct NotesService {
    sign_in: PasswordSignIn<Account>,
    /// Lets a request pass if the user has given the password in the last five minutes.
    fresh: Guard<Account>,
    notes: Arc<Mutex<HashMap<UserId, Vec<String>>>>,
}

impl NotesService {
    /// Changes the notes of the user who is logged in, and returns them.
    async fn change<T>(
        &self,
        request: &Request<T>,
        change: impl FnOnce(&mut Vec<String>),
    ) -> Result<Response<NotesReply>, Status> {
        let user = AuthSession::from_tonic(request)?.user().await?;
        let user = user.ok_or_else(|| Status::unauthenticated("log in first"))?;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = notes.entry(user.id().clone()).or_default();
        change(notes);
        Ok(Response::new(NotesReply { notes: notes.clone() }))
    }
}

#[tonic::async_trait]
impl Notes for NotesService {
    async fn log_in(&self, request: Request<LogInRequest>) -> Result<Response<LogInReply>, Status> {
        let auth = AuthSession::from_tonic(&request)?;
        let LogInRequest { login, password } = request.into_inner();
        let user = match self.sign_in.check(&auth, &login, password).await? {
            PasswordCheck::Ok(user) => user,
            PasswordCheck::Wrong => {
                return Err(Status::unauthenticated("wrong login name or password"));
            }
            PasswordCheck::Throttled(throttled) => return Err(throttled.into()),
        };
        let token = auth.log_in(user).with_method("password").as_bearer().await?;
        let expires_in = token.expires_in();
        Ok(Response::new(LogInReply { token: token.as_str().to_owned(), expires_in }))
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<NotesReply>, Status> {
        let note = request.get_ref().note.clone();
        self.change(&request, |notes| notes.push(note)).await
    }

    async fn clear(&self, request: Request<ClearRequest>) -> Result<Response<NotesReply>, Status> {
        self.fresh.check_tonic(&request).await?;
        self.change(&request, Vec::clear).await
    }

    async fn log_out(
        &self,
        request: Request<LogOutRequest>,
    ) -> Result<Response<LogOutReply>, Status> {
        AuthSession::from_tonic(&request)?.log_out().await?;
        Ok(Response::new(LogOutReply {}))
    }
}
