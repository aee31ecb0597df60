//! A proxy of TCP connections: between a client and a node, or between a node and its store.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a link does with the bytes that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTrouble {
    /// It passes them on.
    None,
    /// It passes them on after this time.
    Delays(Duration),
    /// It drops them, and keeps the connections open, like a firewall that has forgotten them.
    Drops,
    /// It closes all connections, and each new one.
    Cuts,
}

/// A running proxy. Dropping this stops the proxy and closes its connections.
#[derive(Debug)]
pub struct Proxy {
    /// The address where the proxy listens.
    pub address: SocketAddr,
    trouble: watch::Sender<LinkTrouble>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy in front of this server.
    ///
    /// # Panics
    ///
    /// Panics if there is no free port.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (trouble, receiver) = watch::channel(LinkTrouble::None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                links.spawn(link(client, server, receiver.clone()));
                while links.try_join_next().is_some() {}
            }
        });
        Self { address, trouble, _tasks: tasks }
    }

    /// Sets what the proxy does from now on, with the connections that are open, too.
    pub fn set(&self, trouble: LinkTrouble) {
        self.trouble.send_replace(trouble);
    }
}

/// Serves one connection, until one of its ends closes it or the proxy cuts it.
async fn link(client: TcpStream, server: SocketAddr, mut trouble: watch::Receiver<LinkTrouble>) {
    if *trouble.borrow() == LinkTrouble::Cuts {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((client_reads, client_writes), (server_reads, server_writes)) =
        (client.into_split(), server.into_split());
    let (there, back) = (trouble.clone(), trouble.clone());
    tokio::select! {
        () = pass_on(client_reads, server_writes, there) => {}
        () = pass_on(server_reads, client_writes, back) => {}
        _ = trouble.wait_for(|trouble| *trouble == LinkTrouble::Cuts) => {}
    }
}

async fn pass_on(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    trouble: watch::Receiver<LinkTrouble>,
) {
    let mut buffer = vec![0; 16 * 1_024];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(length) if length > 0 => length,
            _ => return,
        };
        let now = *trouble.borrow();
        match now {
            LinkTrouble::None => {}
            LinkTrouble::Delays(time) => tokio::time::sleep(time).await,
            LinkTrouble::Drops => continue,
            LinkTrouble::Cuts => return,
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
