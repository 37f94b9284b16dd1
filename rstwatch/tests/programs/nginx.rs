//! nginx.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Stdio,
};

use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use rstwatch::{cause::catalogue::symptom, event::TcpState};

use crate::{
    expect::{Reset, Who, who},
    place::{Place, Program, at, await_end, await_that, read_all, resume, stop},
};

/// Where nginx listens, and where its upstream does.
const FRONT: u16 = 8080;
const UPSTREAM: u16 = 9000;

/// nginx, and its only worker.
struct Nginx {
    master: Program,
    worker: u32,
}

impl Nginx {
    /// Starts it with `directives` in its server.
    fn start(place: &Place, directives: &str) -> Self {
        place.write("nginx.conf", &config(place, 1, directives));
        let args = ["-p", ".", "-e", "error.log", "-c", "nginx.conf"];
        let master = place.start("nginx", "nginx", args);
        place.await_listener(FRONT);
        let worker = master.await_children(1)[0];
        Self { master, worker }
    }

    /// The worker.
    fn who(&self) -> Who {
        who(self.worker, "nginx")
    }
}

fn config(place: &Place, workers: usize, directives: &str) -> String {
    let root = place.path("");
    let root = root.display();
    format!(
        "daemon off; user root; pid nginx.pid; worker_processes {workers};
         events {{ worker_connections 512; }}
         error_log error.log info;
         http {{
           log_format brief '$remote_port $status $body_bytes_sent';
           access_log access.log brief;
           root {root};
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
           scgi_temp_path scgi; uwsgi_temp_path uwsgi;
           upstream service {{ server 127.0.0.1:{UPSTREAM}; keepalive 4; }}
           proxy_http_version 1.1; proxy_set_header Connection '';
           server {{ listen 127.0.0.1:{FRONT}; {directives} }}
         }}"
    )
}

/// Where everything that curl is to do with nginx begins.
const URL: &str = "http://127.0.0.1:8080/";

const PROXY: &str = "location / { proxy_pass http://service; }";

/// A file that is larger than what fits into the buffers of a connection.
fn large_file(place: &Place) {
    let file = File::create(place.path("large")).expect("a file");
    file.set_len(64 << 20).expect("room");
}

#[test]
fn a_client_is_killed_in_a_download() {
    let place = Place::new();
    large_file(&place);
    let nginx = Nginx::start(&place, "");
    let watched = place.trace();
    // Nobody reads what curl writes, so that it stops reading.
    let mut curl = place.start_with(
        "curl",
        "curl",
        ["-sS", &format!("{URL}large")],
        Stdio::null(),
        |_| Stdio::piped(),
    );
    let _pipe = curl.stdout();
    let server = place.await_row("a full connection", |row| {
        row.local.port() == FRONT && row.probing
    });
    let curls = who(curl.pid(), "curl");
    curl.end_by(Signal::SIGKILL);
    place.await_text("error.log", "104");
    watched.expect(&[
        Reset::sent(server.remote, server.local, "process-died")
            .state("ESTABLISHED")
            .owner(curls)
            .by_killed(curls, Signal::SIGKILL)
            .json(),
        Reset::received(server.local, server.remote, "peer-aborted")
            .state("ESTABLISHED")
            .owner(nginx.who())
            .json(),
    ]);
    println!("{}", place.read("error.log"));
    println!("{}", place.read("access.log"));
}
