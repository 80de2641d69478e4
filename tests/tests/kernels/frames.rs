//! Frames of HTTP/2 as clients and proxies write them.

use std::net::SocketAddr;

use trace502::model::*;

use crate::rig::*;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const RESET: u8 = 3;
pub const CONTINUATION: u8 = 9;

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u32).to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

pub const HEADERS: u8 = 1;
/// The whole block and the whole message.
pub const ALL: u8 = 5;
pub const WHOLE_BLOCK: u8 = 4;

/// "GET /PATH" to "shop.example": the host is an entry of the table from the second request on.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    if stream == 1 {
        block.extend_from_slice(b"\x41\x0cshop.example");
    } else {
        block.push(0xbe);
    }
    frame(HEADERS, ALL, stream, &block)
}

pub fn path_of(error: &ClientError) -> String {
    trace502::wire::http::request(&error.conn.request_head).unwrap().path().to_owned()
}

pub fn stream_error(rig: &mut Rig, address: SocketAddr, stream: u32) -> ClientError {
    rig.wait(&format!("error of stream {stream}"), |seen| match &seen.fact {
        Fact::Client(error) if error.conn.request == stream && error.conn.flow.is_some_and(|f| f.local == address) => {
            Some(error.clone())
        }
        _ => None,
    })
}
