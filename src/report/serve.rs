//! The report of a run, live, for a browser on this machine.
//!
//! A server of one page: it listens on 127.0.0.1 alone, answers GET and HEAD
//! of fixed paths, and only where the browser asks for this very address, so
//! that no other site can read it through a name that it points here. What a
//! client sends is bounded in bytes, time and number.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::follow::Follower;
use super::page::{Align, page};
use crate::bad_input;

/// Bytes of a request's head; browsers send less than one thousand.
const MOST_BYTES: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// Time for a request's head, and for each write of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_CONNECTIONS: usize = 16;
/// The page is made anew at most this often.
const FRESH: Duration = Duration::from_secs(2);

/// A follower that the terminal and the server share.
pub type Shared = Arc<Mutex<Follower>>;

/// Locks a shared follower; a thread that panicked leaves it usable, since
/// each poll only adds whole lines.
pub fn locked(shared: &Shared) -> MutexGuard<'_, Follower> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a run's page from a thread of its own, as long as the process lives;
/// gives the address. Port 0 is any that is free.
///
/// # Errors
/// A port that cannot be had (bad input).
pub fn serve(run: Shared, port: u16) -> Result<SocketAddr> {
    let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(asked).map_err(|error| {
        bad_input!("cannot listen on {asked}: {error}; choose another port, or leave it out")
    })?;
    let address = listener.local_addr()?;
    let site = Arc::new(Site {
        address,
        run,
        made: Mutex::new(None),
        connections: AtomicUsize::new(0),
    });
    std::thread::Builder::new()
        .name("serve".into())
        .spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => site.accept(stream),
                    // Out of file descriptors, most likely: others may end.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
    Ok(address)
}

struct Site {
    address: SocketAddr,
    run: Shared,
    /// The page as last made, and when.
    made: Mutex<Option<(Instant, Arc<str>)>>,
    connections: AtomicUsize,
}

impl Site {
    fn accept(self: &Arc<Self>, stream: TcpStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let counted = Counted(Arc::clone(self));
        // Without a thread the connection is closed and no longer counted.
        let _ = std::thread::Builder::new()
            .name("serve-one".into())
            .spawn(move || {
                // A client that went away needs no answer.
                let _ = counted.0.converse(stream);
            });
    }

    fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some(head) = read_head(&mut stream)? else {
            return Ok(());
        };
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let answer = match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => self.answer(&request),
            _ => Answer::text(
                "400 Bad Request",
                "expected an HTTP request of at most 8 KiB",
            ),
        };
        let with_body = request.method != Some("HEAD");
        stream.write_all(answer.head().as_bytes())?;
        if with_body {
            stream.write_all(answer.body.as_bytes())?;
        }
        // Closing with bytes unread could take the answer back.
        stream.shutdown(Shutdown::Write)?;
        let mut rest = [0; 4096];
        for _ in 0..16 {
            if stream.read(&mut rest)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, request: &httparse::Request) -> Answer {
        let mut hosts = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("host"));
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => std::str::from_utf8(host.value).unwrap_or_default(),
            _ => "",
        };
        let port = self.address.port();
        let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        if !own.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            let text = "this server is for the address that xla-moco watch printed";
            return Answer::text("403 Forbidden", text);
        }
        if !matches!(request.method, Some("GET" | "HEAD")) {
            return Answer::text("405 Method Not Allowed", "expected GET or HEAD");
        }
        match request.path {
            Some("/" | "/report.html") => match self.page() {
                Ok(page) => Answer {
                    status: "200 OK",
                    kind: "text/html",
                    body: page,
                },
                Err(error) => Answer::text("500 Internal Server Error", &format!("{error:#}")),
            },
            _ => Answer::text("404 Not Found", "there is only /"),
        }
    }

    fn page(&self) -> Result<Arc<str>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, page)) = &*made
            && when.elapsed() < FRESH
        {
            return Ok(Arc::clone(page));
        }
        let mut run = locked(&self.run);
        run.poll()?;
        let page: Arc<str> = page(std::slice::from_ref(&*run), Align::Step, true).into();
        *made = Some((Instant::now(), Arc::clone(&page)));
        Ok(page)
    }
}

/// Takes a connection off the count when its thread ends, however it does.
struct Counted(Arc<Site>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes up to the first empty line, or as many as are accepted; `None`
/// from a client that asks for nothing.
fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let end = Instant::now() + PATIENCE;
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut part)?;
        head.extend(&part[..read]);
        if head.windows(4).any(|four| four == b"\r\n\r\n") || head.len() > MOST_BYTES {
            head.truncate(MOST_BYTES);
            return Ok(Some(head));
        }
        if read == 0 {
            return Ok(None);
        }
    }
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Arc<str>,
}

impl Answer {
    fn text(status: &'static str, text: &str) -> Self {
        Answer {
            status,
            kind: "text/plain",
            body: format!("{text}\n").into(),
        }
    }

    /// No header allows another origin anything.
    fn head(&self) -> String {
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n\r\n",
            self.status,
            self.kind,
            self.body.len()
        )
    }
}
