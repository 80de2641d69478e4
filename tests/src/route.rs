//! What a proxy is told about an upstream: plain data from which each proxy's configuration is written.

/// One path prefix of a proxy and where it leads.
#[derive(Clone, Debug)]
pub struct Route {
    /// Requests for `/NAME/…` go here.
    pub name: String,
    /// `address:port`, `name:port` or `unix:/path`.
    pub servers: Vec<String>,
    pub speaks: Speaks,
    /// Keep idle connections, and use them for the next request whoever asks.
    pub keepalive: bool,
    /// The server is a name that the proxy looks up when it needs it.
    pub resolve: bool,
    /// Try the next server after a failure.
    pub retry: bool,
    pub special: Special,
    /// Waits much longer for an answer than the others.
    pub patient: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http,
    /// TLS to a server that calls itself `secure.test`; its certificate is verified.
    Tls {
        verify: bool,
    },
    /// HTTP/2 in plain text.
    H2,
    /// HTTP/2 inside TLS, whoever has the certificate.
    SecureH2,
    FastCgi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    None,
    /// No upstream: the configuration itself answers 502.
    Own502,
    /// The same with 503 (HAProxy).
    Own503,
    /// One more try, and on another server (HAProxy).
    Redispatch,
    /// Health checks or failures take the servers out.
    MarkedDown,
    /// At most one connection to the upstream at a time.
    OneConnection,
    /// One request a minute (nginx).
    Limited,
    /// A name put together at run time, and nobody to ask for it (nginx).
    NoResolver,
    /// A backend with no server in it (HAProxy).
    NoServers,
}

impl Route {
    pub fn to(name: &str, server: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            servers: vec![server.into()],
            speaks: Speaks::Http,
            keepalive: false,
            resolve: false,
            retry: false,
            special: Special::None,
            patient: false,
        }
    }

    pub fn speaking(mut self, speaks: Speaks) -> Self {
        self.speaks = speaks;
        self
    }

    pub fn keepalive(mut self) -> Self {
        self.keepalive = true;
        self
    }

    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    pub fn special(mut self, special: Special) -> Self {
        self.special = special;
        self
    }

    pub fn servers(mut self, servers: &[String]) -> Self {
        self.servers = servers.to_vec();
        self
    }

    /// A word fit for every proxy's names.
    pub fn id(&self) -> String {
        self.name.replace(['-', '/'], "_")
    }

    pub fn server(&self) -> &str {
        self.servers.first().map_or("127.0.0.1:1", String::as_str)
    }
}

/// `unix:/path` without its scheme.
pub fn unix_path(server: &str) -> Option<&str> {
    server.strip_prefix("unix:")
}

/// Host and port of `host:port` and `[v6]:port`.
pub fn host_port(server: &str) -> (&str, &str) {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "80"));
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}
