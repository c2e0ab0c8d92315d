//! `watch --serve`: who is answered what.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::folder::{Folder, numbers};

struct Served {
    child: Child,
    port: u16,
    run: Folder,
    _root: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let run = Folder::new(root.path(), "mine", 64);
        run.steps(1, 10, |_| json!({}));
        let mut child = Command::new(env!("CARGO_BIN_EXE_xla-moco"))
            .args(["watch", "mine", "--serve"])
            .current_dir(root.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("http://127.0.0.1:");
        let port = port.and_then(|rest| rest.strip_suffix('/')).unwrap();
        Served {
            port: port.parse().unwrap(),
            child,
            run,
            _root: root,
        }
    }

    /// The whole answer to these bytes.
    fn ask(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // A server that has seen enough may close before it has all.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn get(&self, method: &str, path: &str, headers: &str) -> String {
        self.ask(format!("{method} {path} HTTP/1.1\r\n{headers}\r\n").as_bytes())
    }

    fn own(&self) -> String {
        format!("Host: 127.0.0.1:{}\r\n", self.port)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_page_is_live_and_for_this_address_alone() {
    let served = Served::start();
    let own = served.own();
    let page = served.get("GET", "/", &own);
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &page[..200]);
    let found = numbers(&page);
    assert_eq!(
        (&found["live"], &found["runs"][0]["last"]),
        (&json!(true), &json!(10))
    );
    assert!(page.contains("connect-src 'self'"));
    // No other origin may read it, whatever it asks for.
    let asked = served.get("GET", "/", &format!("{own}Origin: http://evil.example\r\n"));
    assert!(!asked.to_ascii_lowercase().contains("access-control-"));
    let head = served.get("HEAD", "/report.html", &own);
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"),
        "{head}"
    );

    // It follows the run.
    served.run.steps(11, 25, |_| json!({}));
    let end = Instant::now() + Duration::from_secs(30);
    while numbers(&served.get("GET", "/", &own))["runs"][0]["last"] != 25 {
        assert!(Instant::now() < end, "the page stays at its old step");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn anything_else_is_refused() {
    let served = Served::start();
    let (own, port) = (served.own(), served.port);
    let twice = format!("{own}{own}");
    let other_port = format!("Host: 127.0.0.1:{}\r\n", port ^ 1);
    let rebound = format!("Host: evil.example:{port}\r\n");
    let with_user = format!("Host: x@127.0.0.1:{port}\r\n");
    for (method, path, headers, status) in [
        ("GET", "/", "", "403"),
        ("GET", "/", "Host: 127.0.0.1\r\n", "403"),
        ("GET", "/", &twice, "403"),
        ("GET", "/", &other_port, "403"),
        ("GET", "/", &rebound, "403"),
        ("GET", "/", &with_user, "403"),
        ("POST", "/", &own, "405"),
        ("PUT", "/", &own, "405"),
        ("DELETE", "/", &own, "405"),
        ("OPTIONS", "/", &own, "405"),
        ("GET", "/config.json", &own, "404"),
        ("GET", "/../config.json", &own, "404"),
        ("GET", "/%2e%2e/config.json", &own, "404"),
        ("GET", "//etc/passwd", &own, "404"),
        ("GET", "/?q", &own, "404"),
        ("GET", "http://127.0.0.1/", &own, "404"),
    ] {
        let answer = served.get(method, path, headers);
        let expected = format!("HTTP/1.1 {status} ");
        assert!(
            answer.starts_with(&expected),
            "{method} {path} {headers:?}: {answer}"
        );
        assert!(
            !answer.contains("id=\"data\""),
            "{method} {path} {headers:?}"
        );
    }
    let localhost = format!("host: LOCALHOST:{port}\r\n");
    assert!(
        served
            .get("GET", "/", &localhost)
            .starts_with("HTTP/1.1 200 ")
    );
    let long = format!("GET / HTTP/1.1\r\n{own}X: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\n{own}{}\r\n", "X: x\r\n".repeat(200));
    for bytes in [
        long.as_bytes(),
        many.as_bytes(),
        b"\x16\x03\x01\x02\0\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let answer = served.ask(bytes);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

/// Clients that say nothing take neither the server's time nor its threads.
#[test]
fn silent_clients_do_not_stop_it() {
    let served = Served::start();
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(("127.0.0.1", served.port)).unwrap())
        .collect();
    // At most 16 are listened to, for 5 seconds; then there is room again.
    let end = Instant::now() + Duration::from_secs(30);
    while !served
        .get("GET", "/", &served.own())
        .starts_with("HTTP/1.1 200")
    {
        assert!(Instant::now() < end, "no answer while others are silent");
        std::thread::sleep(Duration::from_millis(300));
    }
    drop(silent);
}
