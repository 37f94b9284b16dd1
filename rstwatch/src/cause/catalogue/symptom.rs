//! What a reset looks like from inside a program: the error numbers, the texts that runtimes make of
//! them, and the lines in the logs of proxies.

/// What the call of a program ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Symptom {
    /// `ECONNRESET`.
    Reset,
    /// `EPIPE`.
    Pipe,
    /// `ECONNREFUSED`.
    Refused,
    /// `ETIMEDOUT`.
    TimedOut,
    /// `ECONNABORTED`.
    Aborted,
    /// The end of the stream, where more was expected: a FIN and no reset.
    End,
}

/// What a program prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The program, runtime or library.
    pub program: &'static str,
    /// Its words. Addresses and names in them are examples.
    pub text: &'static str,
    /// When it says so.
    pub when: &'static str,
}

/// All that is said of a symptom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The symptom.
    pub symptom: Symptom,
    /// The error's name, or what stands in its place.
    pub name: &'static str,
    /// Its number on Linux (`include/uapi/asm-generic/errno.h`).
    pub number: Option<u16>,
    /// `strerror` of it.
    pub message: &'static str,
    /// What it says of the connection.
    pub means: &'static str,
    /// What programs make of it.
    pub lines: &'static [Line],
}

const fn line(program: &'static str, text: &'static str, when: &'static str) -> Line {
    Line {
        program,
        text,
        when,
    }
}

/// nginx: the upstream reset before its answer.
pub const NGINX_RESET: Line = line(
    "nginx",
    "recv() failed (104: Connection reset by peer) while reading response header from upstream",
    "the upstream reset before it had answered; the client gets 502",
);
/// nginx: the upstream reset in the middle of its answer.
pub const NGINX_RESET_BODY: Line = line(
    "nginx",
    "recv() failed (104: Connection reset by peer) while reading upstream",
    "the upstream reset in the middle of its answer",
);
/// nginx: the upstream closed before it had read the request.
pub const NGINX_PIPE: Line = line(
    "nginx",
    "writev() failed (32: Broken pipe) while sending request to upstream",
    "the upstream closed before it had read the request",
);
/// nginx: nobody listens at the upstream.
pub const NGINX_REFUSED: Line = line(
    "nginx",
    "connect() failed (111: Connection refused) while connecting to upstream",
    "nobody listens at the upstream; the client gets 502",
);
/// nginx: the upstream does not answer.
pub const NGINX_TIMED_OUT: Line = line(
    "nginx",
    "connect() failed (110: Connection timed out) while connecting to upstream",
    "the kernel gave up; with `upstream timed out` it was nginx's own timer",
);
/// nginx: the client went away.
pub const NGINX_CLIENT: Line = line(
    "nginx",
    "499 in the access log",
    "the client went away before the answer",
);
/// `HAProxy`: the server refused or reset the connect.
pub const HAPROXY_SC: Line = line(
    "HAProxy",
    "SC in the termination state",
    "the server refused or reset the connect",
);
/// `HAProxy`: the server reset before its answer.
pub const HAPROXY_SH: Line = line(
    "HAProxy",
    "SH in the termination state",
    "the server reset before its response headers were complete",
);
/// `HAProxy`: the server reset in its answer.
pub const HAPROXY_SD: Line = line(
    "HAProxy",
    "SD in the termination state",
    "the server reset in the middle of the data",
);
/// `HAProxy`: the client reset before the answer.
pub const HAPROXY_CH: Line = line(
    "HAProxy",
    "CH in the termination state",
    "the client went away while HAProxy waited for the server's answer",
);
/// `HAProxy`: the client reset in the answer.
pub const HAPROXY_CD: Line = line(
    "HAProxy",
    "CD in the termination state",
    "the client went away in the middle of the data",
);
/// Neither says anything.
pub const NO_LOG: Line = line(
    "nginx, HAProxy",
    "no line",
    "they have no connection that this could end",
);

/// Every symptom, in the order of [`Symptom`].
pub const SYMPTOMS: [Description; Symptom::End as usize + 1] = [
    Description {
        symptom: Symptom::Reset,
        name: "ECONNRESET",
        number: Some(104),
        message: "Connection reset by peer",
        means: "A RST ended the connection, whoever sent it. It is reported once, by the next call; \
                what had arrived before and was not read yet is lost to most programs.",
        lines: &[
            line(
                "Java",
                "java.net.SocketException: Connection reset",
                "read or write",
            ),
            line(
                "Java NIO, Netty",
                "java.io.IOException: Connection reset by peer",
                "write; read before Java 13, and since then as Java",
            ),
            line(
                "OkHttp",
                "java.net.SocketException: Connection reset",
                "read; on Android with TLS: javax.net.ssl.SSLException ... Connection reset by peer",
            ),
            line(
                "Go",
                "read tcp 10.0.0.5:40000->10.0.0.9:443: read: connection reset by peer",
                "read; write: connection reset by peer",
            ),
            line(
                "Python",
                "ConnectionResetError: [Errno 104] Connection reset by peer",
                "recv or send",
            ),
            line(
                "Python requests, urllib3",
                "('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))",
                "any request",
            ),
            line(
                "Node.js",
                "Error: read ECONNRESET",
                "read; Error: socket hang up when no answer had begun",
            ),
            line(
                ".NET",
                "System.IO.IOException: Unable to read data from the transport connection: Connection reset by peer.",
                "read; on Windows: An existing connection was forcibly closed by the remote host",
            ),
            line(
                "Rust",
                "Connection reset by peer (os error 104)",
                "read or write",
            ),
            line(
                "Ruby",
                "Errno::ECONNRESET: Connection reset by peer",
                "read or write",
            ),
            line(
                "curl",
                "curl: (56) Recv failure: Connection reset by peer",
                "read",
            ),
            line(
                "PostgreSQL",
                "could not receive data from client: Connection reset by peer",
                "server log",
            ),
            NGINX_RESET,
            NGINX_RESET_BODY,
            HAPROXY_SH,
            HAPROXY_SD,
            HAPROXY_CD,
        ],
    },
    Description {
        symptom: Symptom::Pipe,
        name: "EPIPE",
        number: Some(32),
        message: "Broken pipe",
        means: "The program wrote to a connection that can no longer be written to: a RST had come \
                after the peer's FIN, or the error was reported by a call before, or this side was \
                shut down. SIGPIPE comes with it unless it is ignored.",
        lines: &[
            line(
                "Java",
                "java.net.SocketException: Broken pipe",
                "write; before Java 13 with (Write failed)",
            ),
            line(
                "Java NIO, Tomcat",
                "java.io.IOException: Broken pipe",
                "write; Tomcat wraps it in ClientAbortException",
            ),
            line(
                "OkHttp",
                "java.net.SocketException: Broken pipe",
                "write to a pooled connection that the server had closed",
            ),
            line(
                "Go",
                "write tcp 10.0.0.5:8080->10.0.0.9:51234: write: broken pipe",
                "write",
            ),
            line("Python", "BrokenPipeError: [Errno 32] Broken pipe", "send"),
            line("Node.js", "Error: write EPIPE", "write"),
            line(
                ".NET",
                "System.IO.IOException: Unable to write data to the transport connection: Broken pipe.",
                "write",
            ),
            line("Rust", "Broken pipe (os error 32)", "write"),
            line("curl", "curl: (55) Send failure: Broken pipe", "write"),
            NGINX_PIPE,
            HAPROXY_CD,
        ],
    },
    Description {
        symptom: Symptom::Refused,
        name: "ECONNREFUSED",
        number: Some(111),
        message: "Connection refused",
        means: "A RST answered the SYN: nobody listens there, or a firewall rejects in its name.",
        lines: &[
            line(
                "Java",
                "java.net.ConnectException: Connection refused",
                "connect",
            ),
            line(
                "OkHttp",
                "java.net.ConnectException: Failed to connect to host/10.0.0.9:443",
                "connect",
            ),
            line(
                "Go",
                "dial tcp 10.0.0.9:443: connect: connection refused",
                "connect",
            ),
            line(
                "Python",
                "ConnectionRefusedError: [Errno 111] Connection refused",
                "connect",
            ),
            line(
                "Python requests, urllib3",
                "Failed to establish a new connection: [Errno 111] Connection refused",
                "any request",
            ),
            line(
                "Node.js",
                "Error: connect ECONNREFUSED 10.0.0.9:443",
                "connect",
            ),
            line(
                ".NET",
                "System.Net.Http.HttpRequestException: Connection refused (host:443)",
                "connect; on Windows: the target machine actively refused it",
            ),
            line("Rust", "Connection refused (os error 111)", "connect"),
            line(
                "curl",
                "curl: (7) Failed to connect to host port 443",
                "connect",
            ),
            NGINX_REFUSED,
            HAPROXY_SC,
            line(
                "HAProxy",
                "Layer4 connection problem, info: \"Connection refused\"",
                "health check",
            ),
        ],
    },
    Description {
        symptom: Symptom::TimedOut,
        name: "ETIMEDOUT",
        number: Some(110),
        message: "Connection timed out",
        means: "The kernel gave the connection up: retransmissions, keepalive probes or \
                TCP_USER_TIMEOUT. No RST came, and only the keepalive timer sends one. A timeout of \
                the program's own, such as Go's i/o timeout, has another text.",
        lines: &[
            line(
                "Java",
                "java.net.SocketException: Connection timed out",
                "read; connect: java.net.ConnectException: Connection timed out",
            ),
            line(
                "OkHttp",
                "java.net.SocketException: Connection timed out",
                "read; SocketTimeoutException is its own timer",
            ),
            line(
                "Go",
                "read tcp 10.0.0.5:40000->10.0.0.9:443: read: connection timed out",
                "read; connect: connection timed out",
            ),
            line(
                "Python",
                "TimeoutError: [Errno 110] Connection timed out",
                "recv or connect",
            ),
            line(
                "Node.js",
                "Error: read ETIMEDOUT",
                "read; connect ETIMEDOUT 10.0.0.9:443",
            ),
            line(
                ".NET",
                "System.Net.Sockets.SocketException (110): Connection timed out",
                "read or connect",
            ),
            line(
                "Rust",
                "Connection timed out (os error 110)",
                "read or connect",
            ),
            NGINX_TIMED_OUT,
            line(
                "HAProxy",
                "sC in the termination state",
                "its own timer for the connect to the server",
            ),
        ],
    },
    Description {
        symptom: Symptom::Aborted,
        name: "ECONNABORTED",
        number: Some(103),
        message: "Software caused connection abort",
        means: "Somebody on this host destroyed the socket: `ss -K`, a BPF program, a network \
                manager. From accept() it means that the client reset before it was accepted.",
        lines: &[
            line(
                "Java",
                "java.net.SocketException: Software caused connection abort",
                "read or write",
            ),
            line(
                "OkHttp",
                "java.net.SocketException: Software caused connection abort",
                "on Android after a change of networks",
            ),
            line("Go", "read: software caused connection abort", "read"),
            line(
                "Python",
                "ConnectionAbortedError: [Errno 103] Software caused connection abort",
                "recv or send",
            ),
            line("Node.js", "Error: read ECONNABORTED", "read"),
            line(
                ".NET",
                "System.Net.Sockets.SocketException (103): Software caused connection abort",
                "read or write",
            ),
            line(
                "nginx",
                "recv() failed (103: Software caused connection abort)",
                "either side",
            ),
            HAPROXY_SD,
        ],
    },
    Description {
        symptom: Symptom::End,
        name: "EOF",
        number: None,
        message: "End of the stream",
        means: "No error and no reset: the peer closed in order (a FIN) where the program expected \
                more. It is here because people look for it as a reset. Whoever writes after it may \
                get a RST: peer-gone over here, data-after-close over there.",
        lines: &[
            line(
                "Java",
                "java.io.EOFException",
                "read; Apache HttpClient: NoHttpResponseException: host:443 failed to respond",
            ),
            line(
                "OkHttp",
                "java.io.IOException: unexpected end of stream on http://host/...",
                "no answer on a pooled connection",
            ),
            line(
                "Android, Conscrypt",
                "javax.net.ssl.SSLHandshakeException: Connection closed by peer",
                "the peer closed in the TLS handshake",
            ),
            line(
                "C programs",
                "Connection closed by peer",
                "read() returned 0",
            ),
            line("Go", "EOF", "read; unexpected EOF within a message"),
            line(
                "Python",
                "http.client.RemoteDisconnected: Remote end closed connection without response",
                "no answer",
            ),
            line(
                "Node.js",
                "Error: socket hang up",
                "no answer; the code is ECONNRESET although no RST came",
            ),
            line(
                ".NET",
                "The response ended prematurely.",
                "HttpRequestException",
            ),
            line("curl", "curl: (52) Empty reply from server", "no answer"),
            line(
                "OpenSSH",
                "Connection closed by 10.0.0.9 port 22",
                "the server closed",
            ),
            line(
                "nginx",
                "upstream prematurely closed connection while reading response header from upstream",
                "the upstream closed before it had answered; the client gets 502",
            ),
            HAPROXY_SH,
        ],
    },
];

impl Symptom {
    /// What is said of it.
    pub const fn description(self) -> &'static Description {
        const TABLE: &[Description] = &SYMPTOMS;
        &TABLE[self as usize]
    }
}

// A description at the wrong place would give a symptom another one's name.
const _: () = {
    let mut i = 0;
    while i < SYMPTOMS.len() {
        assert!(SYMPTOMS[i].symptom as usize == i);
        i += 1;
    }
};
