use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flate2::{Compression, GzBuilder};
use mcp_proxy_engine::{
    Command, Config, Event, FetchError, FetchErrorKind, FetchId, FetchRequest, Headers, HttpResponse, MAX_READ, Pipe,
    Secret, Server, Verify,
};
use smol::LocalExecutor;

use super::Fetches;
use crate::run::{Inbox, Message, Spawner};
use crate::tls;

/// What the engine would be told.
#[derive(Debug, PartialEq)]
enum Seen {
    Head(HttpResponse),
    Data(Vec<u8>),
    Closed(Option<std::io::ErrorKind>),
    Failed(FetchError),
}

/// The part of the loop that looks after fetches.
struct Client {
    fetches: Fetches,
    inbox: Rc<Inbox>,
    executor: Rc<LocalExecutor<'static>>,
    last: u64,
}

impl Client {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let command = Command { program: "x".into(), args: vec![], env: vec![], cwd: None };
        let mut config = Config::new(Server::new("default", command));
        change(&mut config);
        let tls = match &config.outbound.verify {
            verify @ Verify::Bundle(_) => Some(tls::client(verify).unwrap()),
            _ => None,
        };
        let (executor, inbox) = (Rc::new(LocalExecutor::new()), Rc::new(Inbox::default()));
        let fetches = Fetches::new(&config, tls, Spawner::new(&executor), Rc::clone(&inbox));
        Client { fetches, inbox, executor, last: 0 }
    }

    fn next(&mut self) -> (FetchId, Seen) {
        loop {
            let message = smol::block_on(self.executor.run(self.inbox.next()));
            let event = match message {
                Message::Fetch(id, got) => self.fetches.got(id, got),
                Message::Closed(pipe, error) => Some(Event::Closed(pipe, error)),
                Message::FetchFailed(id, error) => Some(Event::FetchFailed(id, error)),
                _ => panic!("not about a fetch"),
            };
            return match event {
                None => continue,
                Some(Event::Fetched(id, response)) => (id, Seen::Head(response)),
                Some(Event::FetchFailed(id, error)) => (id, Seen::Failed(error)),
                Some(Event::Data(Pipe::Fetched(id), bytes)) => {
                    assert!(!bytes.is_empty() && bytes.len() <= MAX_READ);
                    (id, Seen::Data(bytes.to_vec()))
                }
                Some(Event::Closed(Pipe::Fetched(id), error)) => (id, Seen::Closed(error)),
                Some(event) => panic!("{event:?}"),
            };
        }
    }

    /// Nothing more is said about any fetch: whatever was on its way is gone before the answer of a new one comes.
    fn is_quiet(&mut self) {
        let id = self.get("ftp://nonsense/");
        assert_eq!(self.next().0, id);
    }
}

include!("fetch_cases.rs");
