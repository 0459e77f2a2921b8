//! A small blocking HTTP/1.1 client, independent of everything in the engine and the drivers.
//!
//! Every read has a deadline; one that passes is a panic that says what was waited for.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use super::{DEADLINE, Head, Incoming, Request};

/// Connections that wait for their next request.
pub type Pool = Rc<RefCell<Vec<BufReader<TcpStream>>>>;

/// Opens a connection with deadlines.
#[must_use]
pub fn connect(addr: SocketAddr) -> BufReader<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&addr, DEADLINE).unwrap_or_else(|e| panic!("cannot connect to {addr}: {e}"));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

/// The bytes of a request.
#[must_use]
pub fn encode(request: &Request) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in &request.headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if request.method == "POST" {
        bytes.extend(format!("content-length: {}\r\n", request.body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(&request.body);
    bytes
}

/// Sends a request on a connection of the pool, or on a new one.
#[must_use]
pub fn send(addr: SocketAddr, pool: &Pool, request: &Request) -> Response {
    let waiting = pool.borrow_mut().pop();
    let mut conn = waiting.unwrap_or_else(|| connect(addr));
    conn.get_mut().write_all(&encode(request)).unwrap_or_else(|e| panic!("cannot send a request: {e}"));
    Response { conn: Some(conn), pool: Rc::clone(pool), head: None, framing: Framing::None, closes: false }
}

/// A response that comes in. Dropping it before its end cuts the connection.
#[derive(Debug)]
pub struct Response {
    /// `None` once the body has ended.
    conn: Option<BufReader<TcpStream>>,
    pool: Pool,
    head: Option<Head>,
    framing: Framing,
    closes: bool,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClosed,
}

impl Response {
    /// Takes over a connection on which a request was sent by hand.
    #[must_use]
    pub fn on(conn: BufReader<TcpStream>) -> Self {
        Response { conn: Some(conn), pool: Pool::default(), head: None, framing: Framing::None, closes: true }
    }

    fn read_head(&mut self) -> Head {
        let conn = self.conn.as_mut().expect("the head is read once");
        let status = line(conn);
        let number = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status = number.unwrap_or_else(|| panic!("not a status line: {status:?}"));
        let mut headers = Vec::new();
        loop {
            let field = line(conn);
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':').unwrap_or_else(|| panic!("not a header field: {field:?}"));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let head = Head { status, headers };
        self.closes = head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.framing = match (head.get("transfer-encoding"), head.get("content-length")) {
            (Some("chunked"), None) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) if matches!(status, 202 | 204 | 304) => Framing::Length(0),
            (None, None) => Framing::UntilClosed,
            both => panic!("how long is this body? {both:?}"),
        };
        head
    }

    /// The connection is free for the next request.
    fn done(&mut self) {
        let conn = self.conn.take().expect("a body ends once");
        assert!(conn.buffer().is_empty(), "more came than the response: {:?}", String::from_utf8_lossy(conn.buffer()));
        if !self.closes {
            self.pool.borrow_mut().push(conn);
        }
    }
}

impl Incoming for Response {
    fn head(&mut self) -> Head {
        if self.head.is_none() {
            self.head = Some(self.read_head());
            if matches!(self.framing, Framing::Length(0)) {
                self.done();
            }
        }
        self.head.clone().unwrap()
    }

    fn read(&mut self) -> Vec<u8> {
        self.head();
        let Some(conn) = &mut self.conn else { return Vec::new() };
        let mut bytes = Vec::new();
        match self.framing {
            Framing::None => unreachable!("the head says"),
            Framing::Length(left) => {
                bytes.resize(left.min(1 << 16), 0);
                let read = check(conn.read(&mut bytes));
                assert!(read > 0, "the connection ended {left} bytes too early");
                bytes.truncate(read);
                self.framing = Framing::Length(left - read);
                if left == read {
                    self.done();
                }
            }
            Framing::Chunked => {
                let size = line(conn);
                let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("not a chunk size: {size:?}"));
                bytes.resize(size, 0);
                check(conn.read_exact(&mut bytes));
                assert_eq!(line(conn), "", "a chunk ends with a line end");
                if size == 0 {
                    self.done();
                }
            }
            Framing::UntilClosed => {
                bytes.resize(1 << 16, 0);
                let read = check(conn.read(&mut bytes));
                bytes.truncate(read);
                if read == 0 {
                    self.closes = true;
                    self.done();
                }
            }
        }
        bytes
    }
}

/// One line, without its end.
fn line(conn: &mut BufReader<TcpStream>) -> String {
    let mut line = Vec::new();
    check(conn.read_until(b'\n', &mut line));
    assert!(line.ends_with(b"\r\n"), "the connection ended in the middle: {:?}", String::from_utf8_lossy(&line));
    line.truncate(line.len() - 2);
    String::from_utf8(line).unwrap()
}

fn check<T>(result: std::io::Result<T>) -> T {
    result.unwrap_or_else(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => panic!("nothing came within {DEADLINE:?}"),
        _ => panic!("the connection broke: {error}"),
    })
}
