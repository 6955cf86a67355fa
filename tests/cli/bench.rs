//! `smalti bench`: what it writes has the keys that readers of vLLM's benchmarks look for, and numbers that agree
//! with each other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{Folder, Run, fixture, gpt, vq};

/// The records of a run.
fn records(run: &Run) -> Vec<Value> {
    run.lines().into_iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The golden models at 64 pixels: 16 tokens.
fn bench(what: &str, args: &[&str]) -> Run {
    let (gpt, vq) = (gpt(), vq());
    let models = ["bench", what, "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--image-size", "64", "--device", "cpu"];
    Folder::new().run(&[&models, args].concat())
}

#[track_caller]
fn number(record: &Value, key: &str) -> f64 {
    let found = key.split('.').fold(record, |value, key| &value[key]);
    found.as_f64().unwrap_or_else(|| panic!("{key} of {record}"))
}

/// Equal but for rounding.
#[track_caller]
fn same(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} is not {expected}");
}

#[test]
fn latency_has_vllms_keys_and_ours() {
    let run = bench("latency", &["--batch-size", "1,3", "--rounds", "2", "--precision", "f32", "--json"]);
    let found = records(&run);
    assert_eq!(found.len(), 2);
    for (record, images) in found.iter().zip([1.0, 3.0]) {
        let latencies: Vec<f64> =
            record["latencies"].as_array().expect("a list").iter().map(|x| x.as_f64().expect("seconds")).collect();
        assert_eq!(latencies.len(), 2);
        let mean = (latencies[0] + latencies[1]) / 2.0;
        same(number(record, "avg_latency"), mean);
        same(number(record, "percentiles.50"), mean);
        assert!(number(record, "std_latency") <= mean);
        same(number(record, "images_per_second"), images / mean);
        assert_eq!((number(record, "batch_size"), number(record, "cfg_rows")), (images, 2.0 * images));
        assert_eq!((number(record, "tokens"), number(record, "passes_per_image")), (16.0, 16.0));
        let (ttft, step) = (number(record, "ttft_ms.median"), number(record, "ms_per_step.median"));
        let whole = 1e3 * latencies.iter().copied().fold(0.0, f64::max);
        assert!(ttft > 0.0 && step > 0.0 && ttft + 15.0 * step < 2.0 * whole, "{record}");
        // A floor is the time of its bytes or of its operations, whichever is longer.
        let bytes = number(record, "step.bytes") / number(record, "step.bandwidth");
        let flops = number(record, "step.flops") / number(record, "step.arithmetic");
        same(number(record, "step.floor_seconds"), bytes.max(flops));
        assert!(number(record, "peak_memory_bytes") > 1e6);
        assert_eq!((record["dtype"].as_str(), record["vq_dtype"].as_str()), (Some("f32"), Some("f32")));
        assert_eq!((record["lookahead"].as_str(), &record["one_by_one_ms"]), (Some("1"), &Value::Null));
    }
}

#[test]
fn latency_with_windows_stands_beside_one_by_one() {
    let run = bench("latency", &["--rounds", "2", "--lookahead", "4", "--top-k", "3", "--json"]);
    let record = &records(&run)[0];
    let passes = number(record, "passes_per_image");
    assert!((4.0..16.0).contains(&passes), "{record}");
    let right = record["acceptance"].as_array().expect("a list");
    assert!(right.len() == 3 && right[0].as_f64().is_some_and(|right| (0.0..=1.0).contains(&right)), "{record}");
    assert!(number(record, "one_by_one_ms.min") > 0.0 && record["lookahead"] == "4", "{record}");
    let table = bench("latency", &["--rounds", "1", "--lookahead", "auto"]).lines().join("\n");
    assert!(table.contains("one by one") && table.contains("right guesses"), "{table}");
}

#[test]
fn a_text_model_is_measured_too() {
    let gpt = fixture("golden/t2i/gpt.pt");
    let models = ["bench", "latency", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq(), "--image-size", "64", "--n-head", "2"];
    let record =
        &records(&Folder::new().run(&[&models[..], &["--device", "cpu", "--rounds", "1", "--json"]].concat()))[0];
    // The first token is the prefill's.
    assert_eq!((number(record, "tokens"), number(record, "passes_per_image")), (16.0, 15.0));
}

#[test]
fn latency_shows_a_table() {
    let run = bench("latency", &["--rounds", "1", "--vq-precision", "bf16", "--cfg-scale", "1"]);
    let text = run.lines().join("\n");
    for part in ["VQ in bf16", "no guidance", "batch of 1, 16 tokens each", "images/s", "times floor", "peak memory"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn throughput_counts_as_vllm_counts() {
    let run = bench("throughput", &["--batch-size", "2", "--num-images", "5", "--rounds", "1", "--json"]);
    let record = &records(&run)[0];
    assert_eq!((number(record, "num_requests"), number(record, "total_num_tokens")), (5.0, 5.0 * 17.0));
    let elapsed = number(record, "elapsed_time");
    same(number(record, "requests_per_second"), 5.0 / elapsed);
    same(number(record, "tokens_per_second"), 85.0 / elapsed);
    same(number(record, "output_tokens_per_second"), 80.0 / elapsed);
    let (ttft, step) = (number(record, "ttft_ms.median"), number(record, "ms_per_step.median"));
    assert!(ttft > 0.0 && step > 0.0 && number(record, "vq_decode_ms.median") > 0.0, "{record}");
    same(1e-3 * step / number(record, "step.floor_seconds"), number(record, "times_floor.median"));
    assert_eq!(number(record, "passes_per_image"), 16.0);
    let run = bench("throughput", &["--batch-size", "2", "--num-images", "4", "--rounds", "1"]);
    let lines = run.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(["first token", "times floor", "peak memory"].iter().all(|title| lines[1].contains(title)), "{}", lines[1]);
    assert_eq!(lines[2].split_whitespace().take(2).collect::<Vec<_>>(), ["2", "4"], "{}", lines[2]);
}

#[test]
fn a_step_has_the_longer_of_both_times_as_its_floor() {
    let args = ["bench", "step", "--image-size", "64", "--rounds", "1", "--steps", "2", "--device", "cpu"];
    let found = &records(&Folder::new().run(&[&args[..], &["--json"]].concat()))[0];
    let median = |name: &str| number(found, &format!("{name}.median"));
    let times =
        [("bytes", "bandwidth"), ("flops", "arithmetic")].map(|(work, rate)| number(found, work) / median(rate));
    same(times[0].max(times[1]), median("floor"));
    same(median("step") / median("floor"), median("times_floor"));
    let lines = Folder::new().run(&[&args[..], &["--model", "B"]].concat()).lines().join("\n");
    for title in ["work", "bandwidth", "arithmetic", "floor", "step", "times floor", "tokens/s"] {
        assert!(lines.contains(&format!("\n{title:14}")), "{title}: {lines}");
    }
}

#[test]
fn kernels_list_every_op_of_a_decode() {
    let args = ["bench", "kernels", "--part", "vq", "--image-size", "32", "--rounds", "1", "--device", "cpu", "--json"];
    let found = records(&Folder::new().run(&args));
    let count = |op: &str| -> f64 { found.iter().filter(|r| r["op"] == op).map(|r| number(r, "count")).sum() };
    // VQ-16's decoder: 59 convolutions, one of them part of the lookup and, in each of four attention blocks, three in one.
    assert_eq!((count("conv2d"), count("spatial_attention"), count("codebook_lookup")), (50.0, 4.0, 1.0));
    for record in &found {
        let (seconds, times) = (number(record, "seconds.median"), number(record, "times_floor.median"));
        same(seconds / number(record, "floor_seconds"), times);
    }
}

#[test]
fn kernels_of_the_other_parts_are_listed_too() {
    let ops = |part: &str, more: &[&str]| -> Vec<String> {
        let args = ["bench", "kernels", "--part", part, "--rounds", "1", "--device", "cpu", "--json"];
        let found = records(&Folder::new().run(&[&args, more].concat()));
        found.iter().map(|record| record["op"].as_str().expect("a name").to_string()).collect()
    };
    let (encode, text) = (ops("vq-encode", &["--image-size", "32"]), ops("text", &[]));
    let windows = ops("step", &["--image-size", "64", "--lookahead", "3"]);
    for op in ["embed", "norm_logits", "sample", "accept"] {
        assert!(windows.iter().any(|found| found == op), "{op} in {windows:?}");
    }
    for op in ["pixels_to_input", "conv2d", "nearest_code"] {
        assert!(encode.iter().any(|found| found == op), "{op} in {encode:?}");
    }
    for op in ["embed", "norm_linear", "text_attention", "norm_gated_gelu", "norm_rows"] {
        assert!(text.iter().any(|found| found == op), "{op} in {text:?}");
    }
}

#[test]
fn records_are_drawn() {
    let folder = Folder::new();
    let lines = "{\"engine\":\"one\",\"model\":\"B\",\"batch_size\":1,\"images_per_second\":0.5}\nnoise\n\
        {\"engine\":\"two\",\"model\":\"B\",\"batch_size\":1,\"images_per_second\":0.1}\n";
    std::fs::write(folder.path("a.jsonl"), lines).expect("written");
    let run = folder.run(&["bench", "plot", "a.jsonl", "--title", "A title", "-o", "a.svg"]);
    assert_eq!(run.lines(), ["a.svg"]);
    let svg = std::fs::read_to_string(folder.path("a.svg")).expect("a picture");
    for part in ["<svg ", "A title", "GPT-B, 1 at once", ">one<", ">two<", ">0.500<", ">0.100<"] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    std::fs::write(folder.path("b.jsonl"), "nothing\n").expect("written");
    let run = folder.run(&["bench", "plot", "a.jsonl", "b.jsonl"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("b.jsonl") && run.stderr.contains("hint: "), "{}", run.stderr);
}

/// How the pictures' server answers.
#[derive(Clone, Copy)]
enum Answer {
    Plain,
    Stream,
    Busy,
}

/// A server of pictures that answers each request after 20 ms; its address. It lives as long as the test.
fn server(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || reply(stream, answer));
        }
    });
    address
}

fn reply(mut stream: TcpStream, answer: Answer) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let (mut line, mut length, mut first) = (String::new(), 0, String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
        if first.is_empty() {
            first.clone_from(&line);
        }
        let lower = line.to_lowercase();
        length = lower.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().expect("a number"));
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let mut send = |status: &str, kind: &str, body: &str| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
        stream.write_all((head + body).as_bytes()).and_then(|()| stream.flush()).expect("sent");
    };
    if first.starts_with("GET /v1/models") {
        return send("200 OK", "application/json", r#"{"data":[{"id":"golden"}]}"#);
    }
    assert!(first.starts_with("POST /v1/images/generations"), "{first}");
    let asked: Value = serde_json::from_slice(&body).expect("JSON");
    assert!(asked["prompt"].as_str().is_some_and(|prompt| prompt.starts_with("class:")), "{asked}");
    std::thread::sleep(Duration::from_millis(20));
    let usage = r#""usage":{"input_tokens":1,"output_tokens":16}"#;
    match answer {
        Answer::Plain => send("200 OK", "application/json", &format!(r#"{{"data":[{{"b64_json":""}}],{usage}}}"#)),
        Answer::Busy => send("429 Too Many Requests", "application/json", r#"{"error":{"message":"queue full"}}"#),
        Answer::Stream => {
            assert_eq!((asked["stream"].as_bool(), asked["partial_images"].as_u64()), (Some(true), Some(1)));
            send("200 OK", "text/event-stream", "data: {\"type\":\"image_generation.partial_image\"}\n\n");
            std::thread::sleep(Duration::from_millis(30));
            let done = format!("data: {{\"type\":\"image_generation.completed\",{usage}}}\n\ndata: [DONE]\n\n");
            stream.write_all(done.as_bytes()).expect("sent");
        }
    }
}

fn bench_serve(answer: Answer, args: &[&str]) -> Run {
    let url = server(answer);
    Folder::new().run(&[&["bench", "serve", "--url", &url, "--json"], args].concat())
}

#[test]
fn a_server_is_measured_in_a_closed_loop() {
    let goals = ["--goodput", "e2el:60000,ttft:60000", "--label", "golden load"];
    let run = bench_serve(Answer::Plain, &[&["--num-prompts", "6", "--max-concurrency", "2"][..], &goals].concat());
    let record = &records(&run)[0];
    assert_eq!((number(record, "completed"), number(record, "failed")), (6.0, 0.0));
    assert_eq!((number(record, "total_input_tokens"), number(record, "total_output_tokens")), (6.0, 96.0));
    assert_eq!((record["model_id"].as_str(), record["request_rate"].as_str()), (Some("golden"), Some("inf")));
    assert!(number(record, "max_concurrent_requests") <= 2.0, "{record}");
    let duration = number(record, "duration");
    // Three after each other on each of two connections.
    assert!(duration >= 0.06 && number(record, "median_e2el_ms") >= 20.0, "{record}");
    same(number(record, "request_throughput"), 6.0 / duration);
    same(number(record, "request_goodput"), 6.0 / duration);
    same(number(record, "output_throughput"), 96.0 / duration);
    same(number(record, "total_token_throughput"), 102.0 / duration);
    assert_eq!(
        (record["label"].as_str(), &record["output_lens"]),
        (Some("golden load"), &json!([16, 16, 16, 16, 16, 16]))
    );
    assert!(record["median_itl_ms"].is_null(), "a plain reply has no times between: {record}");
}

#[test]
fn a_server_is_measured_in_an_open_loop() {
    // Gaps of 1 ms on average, replies of 50 ms: requests do not wait for each other.
    let load = ["--num-prompts", "20", "--request-rate", "1000", "--partial-images", "1", "--goodput", "ttft:1"];
    let run = bench_serve(Answer::Stream, &load);
    let record = &records(&run)[0];
    assert_eq!((number(record, "completed"), number(record, "request_rate")), (20.0, 1000.0));
    assert!(number(record, "max_concurrent_requests") > 2.0, "{record}");
    let (ttft, itl, e2el) =
        (number(record, "mean_ttft_ms"), number(record, "mean_itl_ms"), number(record, "mean_e2el_ms"));
    assert_eq!(number(record, "request_goodput"), 0.0, "no first event comes within 1 ms");
    assert!(ttft >= 20.0 && itl >= 25.0 && e2el >= ttft + itl - 1.0, "{record}");
    // (latency - first event) / (16 tokens - 1)
    let tpot = number(record, "mean_tpot_ms");
    assert!((tpot - (e2el - ttft) / 15.0).abs() < 1e-6 * tpot, "{record}");
}

#[test]
fn a_server_that_refuses_or_is_not_there_is_told() {
    let run = bench_serve(Answer::Busy, &["--num-prompts", "2"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("status 429: queue full"), "{}", run.stderr);
    let url = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let run = Folder::new().run(&["bench", "serve", "--url", &url]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("cannot reach") && run.stderr.contains(&url), "{}", run.stderr);
}
