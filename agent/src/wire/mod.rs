//! What bytes on a connection say: heads of HTTP, FastCGI, TLS, HTTP/2 and DNS messages.
//!
//! Pure parsers of the first bytes of something, which may be cut anywhere or hostile: no I/O, no panics, and
//! text leaves here already made safe. What it means for a request is judged elsewhere.

pub mod dns;
pub mod fastcgi;
mod flaw;
pub mod h2;
pub mod hpack;
pub mod http;
pub mod looks;
pub mod openssl;
pub mod tls;

pub use looks::Looks;
