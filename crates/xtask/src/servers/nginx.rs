//! nginx, as a shared cache and as a proxy with its default buffers.

use std::net::{SocketAddr, TcpStream};

use super::instance::Instance;

/// Writes the settings of an nginx in front of a site. It caches every response that a shared cache
/// may store, and says in the header `X-Cache` whether a response came from the cache.
pub(super) fn set_up(instance: &Instance, site: SocketAddr) -> Result<(), String> {
    let (port, directory) = (instance.port, instance.directory.display());
    let temporary_paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("    {what}_temp_path {directory}/{what};\n"))
        .concat();
    let settings = format!(
        "daemon off;
pid {directory}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
{temporary_paths}    proxy_cache_path {directory}/cache keys_zone=shared:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://{site};
            proxy_cache shared;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
"
    );
    instance.write("nginx.conf", &settings)
}

pub(super) fn arguments(instance: &Instance) -> Vec<String> {
    let directory = instance.directory.display();
    // Without `-e` and `-p`, nginx would write to the system's directories until it has read its
    // settings.
    ["-e", "stderr", "-p", &directory.to_string(), "-c", &format!("{directory}/nginx.conf")]
        .map(str::to_owned)
        .to_vec()
}

pub(super) fn is_ready(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
