//! 64 clients at once: nothing but 200 and 429, no reply lost, none given twice or to another, memory flat.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::client::Server;

const CLIENTS: u64 = 64;

/// `SMALTI_LOAD_SECONDS` makes it longer; the figures that were taken are in `benches/results`.
fn seconds() -> u64 {
    std::env::var("SMALTI_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[derive(Default)]
struct Told {
    latencies: Vec<f64>,
    busy: u64,
    /// The bytes of each picture, by its own seed: equal ones would be one picture given out twice.
    pictures: BTreeSet<u64>,
}

#[test]
fn sixty_four_clients() {
    #[cfg(feature = "demo")]
    let server = Server::demo(&["--demo-classes", "--queue", "32"]);
    #[cfg(not(feature = "demo"))]
    let server = Server::with("c2i/gpt.pt", 128, &["--queue", "32"]);
    let told = Mutex::new(Told::default());
    let time = Duration::from_secs(seconds());
    let started = Instant::now();
    let mut warm = 0;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, told) = (&server, &told);
            scope.spawn(move || {
                // The seed names client and request; the reply must be this request's.
                for number in 0.. {
                    if started.elapsed() >= time {
                        return;
                    }
                    let seed = client << 32 | number;
                    let asked = Instant::now();
                    let reply = server.post(&format!(r#"{{"prompt": "{}", "seed": {seed}}}"#, client % 10));
                    if reply.status == 429 {
                        told.lock().unwrap().busy += 1;
                        // As many milliseconds as the server said seconds: the queue is to stay full.
                        let wait = reply.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
                        std::thread::sleep(Duration::from_millis(20 * wait.expect("a time to wait")));
                        continue;
                    }
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    let data = &reply.json()["data"];
                    assert_eq!((&data[0]["seed"], &data[0]["class"]), (&seed.into(), &(client % 10).into()));
                    let picture = data[0]["b64_json"].as_str().expect("a picture");
                    let mut told = told.lock().unwrap();
                    told.latencies.push(asked.elapsed().as_secs_f64());
                    // The PNG's text has the seed in it; equal bytes are the same reply.
                    let hash = picture.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
                    });
                    assert!(told.pictures.insert(hash), "a reply was given twice");
                }
            });
        }
        while started.elapsed() < time / 3 {
            std::thread::sleep(Duration::from_millis(50));
        }
        warm = server.memory();
    });
    let elapsed = started.elapsed().as_secs_f64();
    let memory = server.memory();
    let mut told = told.into_inner().unwrap();
    let count = told.latencies.len();
    assert!(count > 0);
    assert_eq!(server.figure("smalti_requests_total{task=\"c2i\",status=\"ok\"}"), count as f64);
    assert_eq!(server.figure("smalti_requests_total{task=\"c2i\",status=\"busy\"}"), told.busy as f64);
    for idle in
        ["smalti_requests_running", "smalti_requests_waiting", "smalti_requests_total{task=\"c2i\",status=\"failed\"}"]
    {
        assert_eq!(server.figure(idle), 0.0, "{idle}");
    }
    // Within 5 % from a third of the time on. Short runs are still filling the allocator's pools then.
    if seconds() >= 60 {
        assert!(memory as f64 <= 1.05 * warm as f64, "{warm} kB became {memory} kB");
    }
    told.latencies.sort_by(f64::total_cmp);
    let at = |share: f64| told.latencies[((count - 1) as f64 * share) as usize];
    let stage = |stage: &str| server.figure(&format!("smalti_engine_seconds_total{{stage=\"{stage}\"}}"));
    let (decode, paint, other) = (stage("decode"), stage("vq_decode"), stage("other"));
    println!(
        "{count} pictures and {} times 429 in {elapsed:.1} s: {:.1} pictures/s, {:.0} tokens/s, p50 {:.3} s, p99 {:.3} s; \
         memory {warm} kB, then {memory} kB; the engine was busy for {:.1} s, {:.2} % of it in no model",
        told.busy,
        count as f64 / elapsed,
        server.figure("smalti_generation_tokens_total") / elapsed,
        at(0.5),
        at(0.99),
        decode + paint + other,
        100.0 * other / (decode + paint + other),
    );
}
