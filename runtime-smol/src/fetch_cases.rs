// What both drivers must do. Each includes this file behind a `Client` of its own, which has `fetches` and `last`, and
// `new`, `next` and `is_quiet`.

impl Client {
    fn send(&mut self, method: &'static str, url: &str, body: &[u8]) -> FetchId {
        self.last += 1;
        let mut headers = Headers::new();
        headers.push("x-test", "caf\u{e9}");
        let url = Secret::new(url.to_owned());
        self.fetches.start(FetchId(self.last), FetchRequest { method, url, headers, body: body.to_vec() });
        FetchId(self.last)
    }

    fn get(&mut self, url: &str) -> FetchId {
        self.send("GET", url, b"")
    }

    fn head(&mut self, id: FetchId) -> HttpResponse {
        match self.next() {
            (from, Seen::Head(head)) if from == id => head,
            seen => panic!("{seen:?}"),
        }
    }

    fn failed(&mut self, id: FetchId) -> (FetchErrorKind, String) {
        match self.next() {
            (from, Seen::Failed(error)) if from == id => (error.kind, error.text),
            seen => panic!("{seen:?}"),
        }
    }

    /// Permits one read.
    fn read(&mut self, id: FetchId) -> Seen {
        self.fetches.read(id);
        let (from, seen) = self.next();
        assert_eq!(from, id);
        seen
    }

    /// Reads to the end.
    fn body(&mut self, id: FetchId) -> (String, Option<std::io::ErrorKind>) {
        let mut all = Vec::new();
        loop {
            match self.read(id) {
                Seen::Data(bytes) => all.extend(bytes),
                Seen::Closed(error) => return (String::from_utf8(all).unwrap(), error),
                seen => panic!("{seen:?}"),
            }
        }
    }

    /// Reads until these bytes were there, and not one more.
    fn expect(&mut self, id: FetchId, bytes: &[u8]) {
        let mut all = Vec::new();
        while all.len() < bytes.len() {
            match self.read(id) {
                Seen::Data(more) => all.extend(more),
                seen => panic!("{seen:?} after {:?}", String::from_utf8_lossy(&all)),
            }
        }
        assert_eq!(String::from_utf8_lossy(&all), String::from_utf8_lossy(bytes));
    }
}

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// A connection as a server sees it.
struct Peer(BufReader<Box<dyn Duplex>>);

impl Peer {
    /// The next request: its head, and its body.
    fn request(&mut self) -> (String, Vec<u8>) {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = Vec::new();
            if self.0.read_until(b'\n', &mut line).unwrap() == 0 {
                panic!("no request: {head:?}");
            }
            let line: String = line.iter().map(|&b| char::from(b)).collect();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            head.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
        self.0.get_mut().flush().unwrap();
    }

    /// One chunk of a chunked body.
    fn chunk(&mut self, bytes: &[u8]) {
        self.say([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
    }

    /// Waits until the other side is gone.
    fn leaves(mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = self.0.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
}

fn accept(listener: &TcpListener) -> Peer {
    Peer(BufReader::new(Box::new(listener.accept().unwrap().0)))
}

/// Runs a server on a thread; join it, so that its assertions count.
fn serve(script: impl FnOnce(TcpListener) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, thread::spawn(move || script(listener)))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";

#[test]
fn a_whole_answer_and_a_kept_connection() {
    let (url, server) = serve(|listener| {
        let mut peer = accept(&listener);
        let (head, body) = peer.request();
        assert!(head.starts_with("POST /mcp?key=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nhost: {}\r\n", listener.local_addr().unwrap())), "{head}");
        assert!(head.contains("\r\nx-test: caf\u{e9}\r\n"), "{head}");
        assert!(head.contains("\r\naccept-encoding: gzip\r\n"), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert_eq!(body, b"[1]");
        peer.say(OK);
        // Everything else comes on the same connection: nobody accepts another.
        let (head, _) = peer.request();
        assert!(head.starts_with("GET / HTTP/1.1\r\n") && !head.contains("content-length"), "{head}");
        peer.say("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        let (head, _) = peer.request();
        assert!(head.starts_with("DELETE / HTTP/1.1\r\n"), "{head}");
        peer.say("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
        peer.request();
        peer.say("HTTP/1.1 307 No\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 3\r\n\r\nabc");
        peer.request();
        peer.say(
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        );
        peer.leaves();
    });
    let mut client = Client::new(|_| {});
    let id = client.send("POST", &format!("{url}/mcp?key=1"), b"[1]");
    let head = client.head(id);
    assert_eq!((head.status, head.headers.get("content-type")), (200, Some("application/json")));
    assert_eq!(head.headers.iter().count(), 1);
    assert_eq!(client.body(id), ("{}".into(), None));
    for (method, status, body) in [("GET", 202, ""), ("DELETE", 204, ""), ("POST", 307, "abc"), ("GET", 404, "x")] {
        let id = client.send(method, &url, b"");
        assert_eq!(client.head(id).status, status);
        assert_eq!(client.body(id), (body.into(), None));
    }
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn each_event_comes_before_the_next() {
    let (more, wait) = mpsc::channel();
    let (url, server) = serve(move |listener| {
        let mut peer = accept(&listener);
        peer.request();
        peer.say(format!("{EVENTS}\r\n"));
        for n in 0..3 {
            wait.recv().unwrap();
            peer.chunk(format!("data: {n}\n\n").as_bytes());
        }
        peer.say("0\r\n\r\n");
    });
    let mut client = Client::new(|_| {});
    let id = client.get(&url);
    client.head(id);
    for n in 0..3 {
        more.send(()).unwrap();
        client.expect(id, format!("data: {n}\n\n").as_bytes());
    }
    assert_eq!(client.read(id), Seen::Closed(None));
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn each_zipped_event_comes_before_the_next() {
    let (more, wait) = mpsc::channel::<String>();
    let (url, server) = serve(move |listener| {
        let mut peer = accept(&listener);
        peer.request();
        peer.say(format!("{EVENTS}Content-Encoding: gzip\r\n\r\n"));
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
        while let Ok(event) = wait.recv() {
            gzip.write_all(event.as_bytes()).unwrap();
            gzip.flush().unwrap();
            peer.chunk(&std::mem::take(gzip.get_mut()));
        }
        peer.chunk(&gzip.finish().unwrap());
        peer.say("0\r\n\r\n");
        peer.request();
        peer.say(OK);
    });
    let mut client = Client::new(|_| {});
    let id = client.get(&url);
    assert_eq!(client.head(id).headers.get("content-encoding"), None);
    for n in [1, 10_000, 2, 65_536, 65_535, 3] {
        let event = format!("data: {}\n\n", "x".repeat(n));
        more.send(event.clone()).unwrap();
        client.expect(id, event.as_bytes());
    }
    drop(more);
    assert_eq!(client.read(id), Seen::Closed(None));
    // The whole body was read, so the connection is still good.
    let id = client.get(&url);
    client.head(id);
    assert_eq!(client.body(id), ("{}".into(), None));
    server.join().unwrap();
}

#[test]
fn large_bodies_come_in_pieces() {
    let text = "0123456789abcdef".repeat(200_000);
    let zipped = {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    let (body, sent) = (text.clone(), text.clone());
    let (url, server) = serve(move |listener| {
        let mut peer = accept(&listener);
        assert_eq!(peer.request().1, sent.as_bytes());
        peer.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        peer.request();
        peer.say(format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", zipped.len()));
        peer.say(&zipped);
        peer.request();
        peer.say("HTTP/1.0 200 OK\r\n\r\nuntil the end");
    });
    let mut client = Client::new(|_| {});
    for (sent, expected) in [(&*text, &*text), ("", &*text), ("", "until the end")] {
        let id = client.send("POST", &url, sent.as_bytes());
        client.head(id);
        assert!(client.body(id) == (expected.to_owned(), None));
    }
    server.join().unwrap();
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced() {
    let (closed, wait) = mpsc::channel();
    let (url, server) = serve(move |listener| {
        for _ in 0..2 {
            // Closed while idle: seen before the next request, or when it is sent.
            let mut peer = accept(&listener);
            peer.request();
            peer.say(OK);
            drop(peer);
            closed.send(()).unwrap();
        }
        // Closed after the request was taken in, without one byte of an answer.
        let mut peer = accept(&listener);
        peer.request();
        peer.say(OK);
        peer.request();
        drop(peer);
        let mut peer = accept(&listener);
        assert_eq!(peer.request().1, b"again");
        peer.say(OK);
        // With a byte of an answer it is not sent again; nor is it on a new connection.
        peer.request();
        peer.say("H");
        drop(peer);
        let mut peer = accept(&listener);
        peer.request();
        drop(peer);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
    let mut client = Client::new(|_| {});
    for n in 0..4 {
        let id = client.send("POST", &url, if n == 3 { b"again" } else { b"first" });
        assert_eq!(client.head(id).status, 200);
        assert_eq!(client.body(id), ("{}".into(), None));
        if n < 2 {
            wait.recv().unwrap();
        }
    }
    for _ in 0..2 {
        let id = client.send("POST", &url, b"x");
        let (kind, text) = client.failed(id);
        assert_eq!(kind, FetchErrorKind::Protocol);
        assert!(text.contains("closed the connection before it answered"), "{text}");
    }
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn broken_bodies() {
    let answers = [
        "content-length: 10\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n5\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n",
        "content-encoding: gzip\r\n\r\n\x1f",
        "content-encoding: gzip\r\ncontent-length: 5\r\n\r\nplain",
    ];
    let (url, server) = serve(move |listener| {
        for answer in answers {
            let mut peer = accept(&listener);
            peer.request();
            peer.say(format!("HTTP/1.1 200 OK\r\n{answer}"));
        }
    });
    let mut client = Client::new(|_| {});
    for answer in answers {
        let id = client.get(&url);
        client.head(id);
        let (body, error) = client.body(id);
        assert!(error.is_some(), "{answer:?} {body:?}");
        assert!(["", "abc"].contains(&&*body), "{body:?}");
    }
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn answers_that_are_none() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let answers = ["SSH-2.0-nonsense\r\n\r\n".to_owned(), "HTTP/1.1 2".into(), String::new(), long];
    let sent = answers.clone();
    let (url, server) = serve(move |listener| {
        for answer in sent {
            let mut peer = accept(&listener);
            peer.request();
            // It may have left in the middle.
            let _ = peer.0.get_mut().write_all(answer.as_bytes());
        }
    });
    let mut client = Client::new(|_| {});
    for answer in answers {
        let id = client.get(&format!("{url}/?secret"));
        let (kind, text) = client.failed(id);
        assert_eq!(kind, FetchErrorKind::Protocol, "{text}");
        assert!(!text.contains("secret") && !text.contains('\n'), "{answer} {text}");
    }
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn limits_of_time() {
    let (url, server) = serve(|listener| {
        let mut silent = accept(&listener);
        silent.request();
        let mut stalls = accept(&listener);
        stalls.request();
        stalls.say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
        silent.leaves();
        stalls.leaves();
    });
    let mut client = Client::new(|config| {
        config.outbound.head_timeout = Duration::from_millis(300);
        config.outbound.body_timeout = Duration::from_millis(300);
    });
    let id = client.get(&url);
    let (kind, text) = client.failed(id);
    assert_eq!(kind, FetchErrorKind::Timeout);
    assert!(text.ends_with("did not answer within 300ms"), "{text}");
    let id = client.get(&url);
    client.head(id);
    client.expect(id, b"abc");
    assert_eq!(client.read(id), Seen::Closed(Some(std::io::ErrorKind::TimedOut)));
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn closing() {
    let (url, server) = serve(|listener| {
        let mut early = accept(&listener);
        early.request();
        let mut late = accept(&listener);
        late.request();
        late.say(format!("{EVENTS}\r\n1\r\nx\r\n"));
        early.leaves();
        late.leaves();
    });
    let mut client = Client::new(|_| {});
    let early = client.get(&url);
    let late = client.get(&url);
    // The second to be accepted answers, whichever that is.
    let (late, early) = match client.next() {
        (id, Seen::Head(_)) if id == late => (late, early),
        (id, Seen::Head(_)) => (id, late),
        seen => panic!("{seen:?}"),
    };
    client.expect(late, b"x");
    client.fetches.read(late);
    client.fetches.close(late);
    client.fetches.close(late);
    let (id, seen) = client.next();
    assert!(id == late && matches!(seen, Seen::Closed(_)), "{seen:?}");
    client.fetches.close(early);
    client.fetches.read(early);
    assert_eq!(client.failed(early).0, FetchErrorKind::Cancelled);
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn nobody_there() {
    let mut client = Client::new(|_| {});
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let id = client.get(&format!("http://127.0.0.1:{port}/?secret"));
    assert_eq!(client.failed(id), (FetchErrorKind::Connect, format!("connection refused by 127.0.0.1:{port}")));
    let id = client.get("http://example.invalid/?secret");
    assert_eq!(client.failed(id), (FetchErrorKind::Name, "cannot resolve example.invalid".into()));
    client.is_quiet();
}

#[test]
fn a_proxy_for_http() {
    let (proxy, server) = serve(|listener| {
        let mut peer = accept(&listener);
        let (head, body) = peer.request();
        assert!(
            head.starts_with("POST http://server.invalid:81/x?y HTTP/1.1\r\nhost: server.invalid:81\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nproxy-authorization: Basic dTpw\r\n"), "{head}");
        assert_eq!(body, b"body");
        peer.say(OK);
        let (head, _) = peer.request();
        assert!(head.starts_with("POST http://server.invalid:81/ HTTP/1.1\r\n"), "{head}");
        peer.say(OK);
    });
    let mut client = Client::new(|config| {
        config.outbound.http_proxy = Some(Secret::new(proxy.replace("http://", "http://u:p@")));
        config.outbound.no_proxy = vec!["127.0.0.1".into()];
    });
    for path in ["/x?y", ""] {
        let id = client.send("POST", &format!("http://server.invalid:81{path}"), b"body");
        client.head(id);
        assert_eq!(client.body(id), ("{}".into(), None));
    }
    server.join().unwrap();
}

/// A certificate for `localhost`, signed by itself; as servers are given it, and as files.
struct Certificate {
    config: Arc<rustls::ServerConfig>,
    cert: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn new(name: &str, authority: bool) -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        if authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let file = |what: &str| std::env::temp_dir().join(format!("mcp-{}-{name}-{what}.pem", std::process::id()));
        let tls = mcp_proxy_engine::Tls { cert: file("cert"), key: file("key") };
        std::fs::write(&tls.cert, cert.pem()).unwrap();
        std::fs::write(&tls.key, key.serialize_pem()).unwrap();
        Certificate { config: tls::server(&tls).unwrap(), cert: tls.cert, key: tls.key }
    }

    fn accept(&self, stream: TcpStream) -> Peer {
        let connection = rustls::ServerConnection::new(Arc::clone(&self.config)).unwrap();
        Peer(BufReader::new(Box::new(rustls::StreamOwned::new(connection, stream))))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.cert);
        let _ = std::fs::remove_file(&self.key);
    }
}

#[test]
fn certificates() {
    for authority in [false, true] {
        let certificate = Arc::new(Certificate::new(&format!("own{authority}"), authority));
        let own = certificate.cert.clone();
        let (url, server) = serve(move |listener| {
            for answered in [true, true, false, false] {
                let mut peer = certificate.accept(listener.accept().unwrap().0);
                if answered {
                    let (head, _) = peer.request();
                    assert!(head.starts_with("GET /mcp HTTP/1.1\r\nhost: localhost:"), "{head}");
                    peer.say(OK);
                    // On the same connection.
                    peer.request();
                    peer.say(format!("{EVENTS}\r\n1\r\nx\r\n"));
                    // No end of the TLS: whether the body is whole cannot be told by its end.
                } else {
                    assert!(peer.0.fill_buf().is_err());
                }
            }
        });
        let url = format!("{}/mcp", url.replace("http://127.0.0.1", "https://localhost"));
        let verify = [Verify::Bundle(own.clone()), Verify::Nothing, Verify::Native];
        for (n, verify) in verify.into_iter().enumerate() {
            let mut client = Client::new(|config| config.outbound.verify = verify);
            let id = client.get(&url);
            if n < 2 {
                client.head(id);
                assert_eq!(client.body(id), ("{}".into(), None));
                let id = client.get(&url);
                client.head(id);
                client.expect(id, b"x");
                assert!(matches!(client.read(id), Seen::Closed(Some(_))));
            } else {
                let (kind, text) = client.failed(id);
                assert_eq!(kind, FetchErrorKind::Tls);
                assert!(text.starts_with("certificate of localhost is not trusted: "), "{text}");
                assert!(text.ends_with("; --verify-ssl FILE trusts it"), "{text}");
            }
        }
        // The right certificate at the wrong name.
        let mut client = Client::new(|config| config.outbound.verify = Verify::Bundle(own));
        let id = client.get(&url.replace("localhost", "127.0.0.1"));
        let (kind, text) = client.failed(id);
        assert_eq!((kind, text.contains("it is for another name")), (FetchErrorKind::Tls, true), "{text}");
        server.join().unwrap();
    }
}

#[test]
fn no_tls_at_all() {
    let (url, server) = serve(|listener| {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        let mut silent = listener.accept().unwrap().0;
        silent.read_to_end(&mut Vec::new()).unwrap();
    });
    let mut client = Client::new(|config| {
        config.outbound.verify = Verify::Nothing;
        config.outbound.connect_timeout = Duration::from_millis(300);
    });
    let url = url.replace("http:", "https:");
    let id = client.get(&url);
    let (kind, text) = client.failed(id);
    assert_eq!((kind, text.ends_with("the other side does not speak TLS")), (FetchErrorKind::Tls, true), "{text}");
    let id = client.get(&url);
    let (kind, text) = client.failed(id);
    assert_eq!((kind, text.contains("TLS handshake")), (FetchErrorKind::Timeout, true), "{text}");
    client.is_quiet();
    server.join().unwrap();
}

#[test]
fn a_proxy_for_https() {
    let certificate = Certificate::new("proxied", false);
    let cert = certificate.cert.clone();
    let (proxy, server) = serve(move |listener| {
        let mut refused = accept(&listener);
        refused.request();
        refused.say("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n");
        let mut stream = listener.accept().unwrap().0;
        let (head, _) = Peer(BufReader::new(Box::new(stream.try_clone().unwrap()))).request();
        assert!(head.starts_with("CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic dTpw\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
        let mut peer = certificate.accept(stream);
        let (head, _) = peer.request();
        assert!(head.starts_with("GET /x HTTP/1.1\r\nhost: localhost\r\n"), "{head}");
        assert!(!head.contains("proxy-authorization"), "{head}");
        peer.say(OK);
    });
    let mut client = Client::new(|config| {
        config.outbound.verify = Verify::Bundle(cert);
        config.outbound.https_proxy = Some(Secret::new(proxy.replace("http://", "http://u:p@")));
    });
    let id = client.get("https://localhost/x");
    let (kind, text) = client.failed(id);
    assert_eq!(
        (kind, text.ends_with("refused a way to localhost: status 403")),
        (FetchErrorKind::Connect, true),
        "{text}"
    );
    let id = client.get("https://localhost/x");
    client.head(id);
    assert_eq!(client.body(id), ("{}".into(), None));
    server.join().unwrap();
}

#[test]
fn files_that_cannot_be_used() {
    let nowhere = PathBuf::from("/nonexistent/x.pem");
    assert_eq!(
        tls::client(&Verify::Bundle(nowhere.clone())).unwrap_err(),
        "\"/nonexistent/x.pem\" cannot be read: entity not found"
    );
    let one = Certificate::new("one", false);
    let other = Certificate::new("other", false);
    for (cert, key) in [(&one.cert, &other.key), (&one.key, &one.key), (&one.cert, &one.cert), (&one.cert, &nowhere)] {
        let error = tls::server(&mcp_proxy_engine::Tls { cert: cert.clone(), key: key.clone() }).unwrap_err();
        assert!(error.contains("mcp-") || error.contains("nonexistent"), "{error}");
    }
}
