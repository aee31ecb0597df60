//! The responses to rejected and failed requests, for every kind of client, as the table of `Guard`
//! says. Real clients send the requests over real sockets.

mod browser;
mod cases;
mod grpc;
mod http_clients;
mod websocket;
