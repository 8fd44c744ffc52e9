//! A server over HTTP with one answer to everything, for unit tests.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// Answers with this body for as long as the process lives; where.
pub fn serve(body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // The question is small, and comes with its head or right behind it.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
            while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}
