//! A server on the loopback interface that does as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the server does with one request.
#[derive(Clone, Copy, PartialEq)]
pub enum Act {
    Serve,
    /// The headers of all, so many bytes, and the end.
    CutAfter(usize),
    /// All, whatever range was asked for.
    NoRanges,
    /// A range that was not asked for.
    OtherRange,
    /// No length, and some bytes more.
    TooLong,
    Status(u16),
}

/// The range that each request asked for.
type Seen = Vec<Option<String>>;

/// Serves files by their paths until it is dropped; at most for a minute.
pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    pub fn new(files: &[(&str, &[u8])], script: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let files: BTreeMap<String, Vec<u8>> = files
            .iter()
            .map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()))
            .collect();
        let mut script: VecDeque<Act> = script.iter().copied().collect();
        let alive = Arc::downgrade(&seen);
        std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_secs(60);
            while Instant::now() < end {
                let Some(seen) = alive.upgrade() else { return };
                match listener.accept() {
                    Ok((stream, _)) => {
                        let act = script.pop_front().unwrap_or(Act::Serve);
                        // A client that went away is its own business.
                        let _ = answer(stream, &files, act, &seen);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { address, seen }
    }

    pub fn ranges(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(
    stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    act: Act,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap()?;
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let mut range = None;
    for line in lines.by_ref() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.to_owned());
        }
    }
    seen.lock().unwrap().push(range.clone());
    let mut out = stream;
    let Some(bytes) = files.get(&path) else {
        return out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let total = bytes.len();
    let start = range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let (head, from) = match (act, start) {
        (Act::Status(status), _) => (format!("{status} No\r\nContent-Length: 0"), total),
        (Act::TooLong, _) => ("200 OK".to_owned(), 0),
        (Act::OtherRange, _) => (
            format!(
                "206 Partial Content\r\nContent-Range: bytes 0-{}/{total}",
                total - 1
            ),
            0,
        ),
        (Act::NoRanges, _) | (_, None) => (format!("200 OK\r\nContent-Length: {total}"), 0),
        (_, Some(start)) => (
            format!(
                "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{total}",
                total - start,
                total - 1
            ),
            start,
        ),
    };
    write!(out, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n")?;
    match act {
        Act::CutAfter(count) => out.write_all(&bytes[from..from + count])?,
        Act::TooLong => out.write_all(&[&bytes[..], b"more"].concat())?,
        _ => out.write_all(&bytes[from..])?,
    }
    out.flush()
}
