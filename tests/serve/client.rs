//! A server process on the golden models, and a client that hides nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::card;

/// Long enough for a loaded machine; nothing waits for it that goes well.
const PATIENCE: Duration = Duration::from_secs(600);

pub const IMAGES: &str = "/v1/images/generations";

/// A running server; killed when the test ends.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// The arguments for golden models.
fn models(gpt: &str, image_size: usize) -> [String; 6] {
    let golden = |file: &str| format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let option = |name: &str| name.to_string();
    let (gpt, vq) = (golden(gpt), golden("vq16/vq.pt"));
    [option("--gpt-ckpt"), gpt, option("--vq-ckpt"), vq, option("--image-size"), image_size.to_string()]
}

impl Server {
    /// The class model at 64 pixels: 4 rows of 4 codes.
    pub fn start(args: &[&str]) -> Self {
        Self::with("c2i/gpt.pt", 64, args)
    }

    pub fn with(gpt: &str, image_size: usize, args: &[&str]) -> Self {
        Self::loading(gpt, image_size, args).ready()
    }

    /// Of no checkpoints.
    #[cfg(feature = "demo")]
    pub fn demo(args: &[&str]) -> Self {
        Self::spawn("cpu", &[], Stdio::inherit(), args).ready()
    }

    fn ready(self) -> Self {
        let until = Instant::now() + PATIENCE;
        while self.get("/health").status != 200 {
            assert!(Instant::now() < until, "it is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        self
    }

    /// A server that may still be loading.
    pub fn loading(gpt: &str, image_size: usize, args: &[&str]) -> Self {
        let models = models(gpt, image_size);
        Self::spawn("cpu", &[], Stdio::inherit(), &[&models.each_ref().map(String::as_str), args].concat())
    }

    /// The class model at 64 pixels on a card with these properties; `None`, which is told, where none can be had.
    pub fn on_card(card: &str) -> Option<Self> {
        let variables = card::variables("a server on a card", card)?;
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        let models = models("c2i/gpt.pt", 64);
        Some(Self::spawn("cuda", &variables, Stdio::piped(), &models.each_ref().map(String::as_str)).ready())
    }

    fn spawn(device: &str, variables: &[(&str, &str)], errors: Stdio, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smalti"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SMALTI_") && name != "SMALTI_CPU") {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        command.args(["serve", "--port", "0", "--device", device, "--quiet"]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("http://").expect("an address").parse().expect("an address");
        Self { child, address }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time");
        stream
    }

    /// Sends a request as it is and reads the reply to its end.
    pub fn exchange(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream.write_all(request).expect("it reads");
        Reply::read(&mut stream)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    }

    /// A request for pictures.
    pub fn post(&self, body: &str) -> Reply {
        self.exchange(&post(body.as_bytes(), ""))
    }

    /// Asks for pictures that must come.
    #[track_caller]
    pub fn images(&self, body: &str) -> Value {
        let reply = self.post(body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// A figure of the metrics, by its name and labels.
    #[track_caller]
    pub fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
    }

    /// Waits until a figure has a value.
    pub fn wait_for(&self, name: &str, value: f64) {
        let until = Instant::now() + PATIENCE;
        while self.figure(name) != value {
            assert!(Instant::now() < until, "{name} is {}, not {value}", self.figure(name));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its resident memory in kB, where the system tells.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// What one on a card has said on standard error, once it has ended.
    pub fn errors(&mut self) -> String {
        let mut text = String::new();
        let pipe = self.child.stderr.as_mut().expect("a pipe");
        pipe.read_to_string(&mut text).expect("UTF-8");
        text
    }

    /// How it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A request for pictures; `headers` end with a line break each.
pub fn post(body: &[u8], headers: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {IMAGES} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

pub struct Reply {
    pub status: u16,
    /// As they came, names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads until the server closes the connection.
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A server that does not read a body to its end resets the connection behind its reply.
        match stream.read_to_end(&mut bytes) {
            Err(error) if bytes.is_empty() => panic!("no reply: {error}"),
            _ => Self::parse(&bytes),
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head of text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_string())
        };
        let headers: Vec<_> = lines.map(header).collect();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if chunked { dechunk(&bytes[end + 4..]) } else { bytes[end + 4..].to_vec() };
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The error that the body tells: status, code, field.
    #[track_caller]
    pub fn error(&self) -> (u16, String, Value) {
        let body = self.json();
        let error = &body["error"];
        for key in ["message", "type", "param", "code"] {
            assert!(error.get(key).is_some(), "{key} in {body}");
        }
        (self.status, error["code"].as_str().expect("a code").to_string(), error["param"].clone())
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.expect("a length");
        let chunk = &bytes[end + 2..];
        if length == 0 || chunk.len() < length + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..length]);
        bytes = &chunk[length + 2..];
    }
    body
}
