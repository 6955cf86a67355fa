//! What is answered: pictures, errors in OpenAI's shape, figures.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use smalti::image::{Rgb8, decode};
use smalti::{Model, ModelFiles, Request, Session, SessionOptions};

use super::client::{Server, post};

fn picture(data: &Value) -> Rgb8 {
    let bytes = STANDARD.decode(data["b64_json"].as_str().expect("base64")).expect("base64");
    decode(&bytes, "reply.png".as_ref()).expect("a PNG")
}

#[test]
fn pictures_are_those_of_the_library() {
    let server = Server::start(&[]);
    let body = r#"{"prompt": "7", "n": 3, "seed": 11, "size": "64x64", "temperature": 0.9, "guidance_scale": 2.5}"#;
    let reply = server.images(body);
    assert_eq!((&reply["seed"], &reply["size"], &reply["output_format"]), (&11.into(), &"64x64".into(), &"png".into()));
    assert!(reply["created"].as_u64().is_some_and(|seconds| seconds > 1_700_000_000));
    assert_eq!(reply["usage"]["output_tokens"], 48);
    assert_eq!((&reply["usage"]["input_tokens"], &reply["usage"]["total_tokens"]), (&3.into(), &51.into()));

    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files = ModelFiles::new(golden.join("c2i/gpt.pt"), golden.join("vq16/vq.pt"));
    files.image_size = Some(64);
    let session = Session::start(&Model::open(&files).unwrap(), &SessionOptions::default()).unwrap();
    let mut request = Request::class(7);
    request.count = 3;
    (request.options.seed, request.options.temperature, request.options.cfg_scale) = (11, 0.9, Some(2.5));
    let expected = session.draw(request).unwrap();
    for (number, (data, expected)) in reply["data"].as_array().unwrap().iter().zip(&expected).enumerate() {
        assert!(picture(data) == expected.picture, "picture {number}");
        assert_eq!((&data["image"], &data["seed"], &data["class"]), (&number.into(), &11.into(), &7.into()));
    }
    // A picture of it alone, by its number; and by another spelling of the class.
    let one = server.images(r#"{"prompt": "", "class_label": "class:7", "seed": 11, "first_image": 2, "temperature": 0.9, "cfg_scale": 2.5}"#);
    assert!(picture(&one["data"][0]) == expected[2].picture);
    let several = server.images(r#"{"class_label": [7, "3"], "n": 2, "seed": 1}"#);
    let classes: Vec<_> = several["data"].as_array().unwrap().iter().map(|data| data["class"].clone()).collect();
    assert_eq!(json!(classes), json!([7, 7, 3, 3]));
}

#[cfg(feature = "demo")]
#[test]
fn without_checkpoints_the_demo_model_is_served() {
    let (texts, classes) = (Model::demo().unwrap(), Model::demo_classes().unwrap());
    let fish = Request::class(classes.class("fish").unwrap());
    for (args, task, model, prompt, mut request) in [
        (&[][..], "t2i", texts, "a blue fish", Request::prompt("a blue fish")),
        (&["--demo-classes"], "c2i", classes, "fish", fish),
    ] {
        let server = Server::demo(args);
        assert_eq!(server.get("/v1/models").json()["data"][0]["task"], task);
        let session = Session::start(&model, &SessionOptions::default()).unwrap();
        request.options.seed = 1;
        let expected = session.draw(request).unwrap();
        let reply = server.images(&format!(r#"{{"prompt": "{prompt}", "seed": 1}}"#));
        assert!(picture(&reply["data"][0]) == expected[0].picture, "{task}");
    }
}

#[test]
fn a_seed_that_nobody_chose_is_told() {
    let server = Server::start(&[]);
    let reply = server.images(r#"{"prompt": "1"}"#);
    let seed = reply["seed"].as_u64().unwrap();
    let again = server.images(&format!(r#"{{"prompt": "1", "seed": {seed}}}"#));
    assert_eq!(again["data"], reply["data"]);
    assert_ne!(server.images(r#"{"prompt": "1"}"#)["seed"], reply["seed"]);
}

#[test]
fn prompts_become_pictures() {
    let t5 = format!("{}/tests/golden/t5", env!("CARGO_MANIFEST_DIR"));
    let server = Server::with("t2i/gpt.pt", 64, &["--t5-path", &t5, "--text-device", "cpu"]);
    let reply = server.images(r#"{"prompt": "a red square", "seed": 3}"#);
    assert!(reply["usage"]["input_tokens"].as_u64().is_some_and(|tokens| tokens > 1), "{}", reply["usage"]);
    for stage in ["text_encode", "decode", "vq_decode"] {
        assert!(reply["timings"][stage].as_f64().is_some_and(|time| time > 0.0), "{stage}: {}", reply["timings"]);
    }
    assert!(reply["data"][0].get("prompt_cut").is_none());
    let long = format!("{}and a boat", "a red square and ".repeat(60));
    let reply_to_long = server.images(&format!(r#"{{"prompt": "{long}", "seed": 3}}"#));
    let cut = reply_to_long["data"][0]["prompt_cut"].as_str().expect("it was cut");
    assert!(long.ends_with(cut) && cut.ends_with("and a boat") && cut.len() < long.len(), "{cut}");
    assert_eq!(reply_to_long["usage"]["input_tokens"], 120);
    // The same once cleaned; the files differ, as their text has the prompt as it came.
    let again = server.images(r#"{"prompt": "A  <i>red</i> square", "seed": 3}"#);
    assert!(picture(&again["data"][0]) == picture(&reply["data"][0]));
    for (body, param) in [
        (r#"{"prompt": 7}"#, "prompt"),
        (r#"{"class_label": 7}"#, "class_label"),
        (r#"{"seed": 7}"#, "prompt"),
        (&format!(r#"{{"prompt": "{}"}}"#, "x".repeat(32_001)), "prompt"),
    ] {
        let (status, _, found) = server.post(body).error();
        assert_eq!((status, found), (400, param.into()), "{body}");
    }
}

#[test]
fn what_cannot_be_is_named() {
    let server = Server::start(&["--max-images", "4"]);
    for (body, code, param) in [
        (r#"{"#, "invalid_json", Value::Null),
        (r#"[1]"#, "invalid_json", Value::Null),
        (r#"{}"#, "missing_required_parameter", "prompt".into()),
        (r#"{"prompt": "10"}"#, "invalid_value", "prompt".into()),
        (r#"{"prompt": "a boat"}"#, "invalid_value", "prompt".into()),
        (r#"{"class_label": "-1"}"#, "invalid_value", "class_label".into()),
        (r#"{"class_label": [1, {}]}"#, "invalid_type", "class_label".into()),
        (r#"{"class_label": []}"#, "invalid_value", "n".into()),
        (r#"{"prompt": "1", "n": 0}"#, "invalid_type", "n".into()),
        (r#"{"prompt": "1", "n": 5}"#, "invalid_value", "n".into()),
        (r#"{"prompt": "1", "n": 18446744073709551615}"#, "invalid_value", "n".into()),
        (r#"{"class_label": [1, 2, 3], "n": 2}"#, "invalid_value", "n".into()),
        (r#"{"prompt": "1", "size": "256x256"}"#, "invalid_value", "size".into()),
        (r#"{"prompt": "1", "size": 64}"#, "invalid_type", "size".into()),
        (r#"{"prompt": "1", "response_format": "url"}"#, "invalid_value", "response_format".into()),
        (r#"{"prompt": "1", "output_format": "webp"}"#, "invalid_value", "output_format".into()),
        (r#"{"prompt": "1", "background": "transparent"}"#, "invalid_value", "background".into()),
        (r#"{"prompt": "1", "negative_prompt": "blur"}"#, "invalid_value", "negative_prompt".into()),
        (r#"{"prompt": "1", "steps": 4}"#, "unknown_parameter", "steps".into()),
        (r#"{"prompt": "1", "seed": -1}"#, "invalid_type", "seed".into()),
        (r#"{"prompt": "1", "temperature": "hot"}"#, "invalid_type", "temperature".into()),
        (r#"{"prompt": "1", "temperature": -1}"#, "invalid_value", "temperature".into()),
        (r#"{"prompt": "1", "temperature": 1e300}"#, "invalid_value", "temperature".into()),
        (r#"{"prompt": "1", "top_p": 0}"#, "invalid_value", "top_p".into()),
        (r#"{"prompt": "1", "top_k": -1}"#, "invalid_value", "top_k".into()),
        (r#"{"prompt": "1", "cfg_interval": -2}"#, "invalid_value", "cfg_interval".into()),
        (r#"{"prompt": "1", "cfg_interval": -9223372036854775808}"#, "invalid_value", "cfg_interval".into()),
        (r#"{"prompt": "1", "stream": "yes"}"#, "invalid_type", "stream".into()),
        (r#"{"prompt": "1", "partial_images": 4}"#, "invalid_type", "partial_images".into()),
        (r#"{"prompt": "1", "first_image": 18446744073709551615}"#, "invalid_value", "first_image".into()),
    ] {
        assert_eq!(server.post(body).error(), (400, code.into(), param), "{body}");
    }
    let (status, code, _) = server.post(r#"{"prompt": "1", "model": "dall-e-3"}"#).error();
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    // What means nothing here is passed over; null is as good as nothing.
    let body = r#"{"prompt": "1", "quality": "high", "style": "vivid", "user": "me", "moderation": "low", "n": null,
                   "background": "auto", "output_compression": 90, "size": "auto", "model": "gpt", "seed": null}"#;
    server.images(body);
    assert_eq!(server.figure("smalti_requests_total{task=\"c2i\",status=\"ok\"}"), 1.0);
    assert_eq!(server.figure("smalti_requests_total{task=\"c2i\",status=\"invalid\"}"), 31.0);
}

#[test]
fn keys_are_checked_where_one_is_set() {
    let server = Server::start(&["--api-key", "secret"]);
    let body = br#"{"prompt": "1"}"#;
    for headers in
        ["", "Authorization: Bearer wrong\r\n", "Authorization: secret\r\n", "Authorization: Bearer secre\r\n"]
    {
        let reply = server.exchange(&post(body, headers));
        assert_eq!(reply.error(), (401, "invalid_api_key".into(), Value::Null), "{headers}");
    }
    assert_eq!(server.exchange(&post(body, "Authorization: Bearer secret\r\n")).status, 200);
    assert_eq!(server.get("/v1/models").status, 401);
    for path in ["/", "/health", "/metrics", "/version"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn it_tells_of_itself() {
    let server = Server::start(&["--name", "tiny"]);
    let models = server.get("/v1/models").json();
    let model = &models["data"][0];
    assert_eq!((&models["object"], &model["id"], &model["root"]), (&"list".into(), &"tiny".into(), &"gpt".into()));
    assert_eq!((&model["task"], &model["image_size"], &model["num_classes"]), (&"c2i".into(), &64.into(), &10.into()));
    assert_eq!(model["defaults"]["cfg_scale"], 4.0);
    assert_eq!(server.get("/v1/models/tiny").json()["object"], "model");
    assert_eq!(server.get("/v1/models/other").error().0, 404);
    assert_eq!(server.get("/classes").json(), json!({ "num_classes": 10, "names": null }));
    assert_eq!(server.get("/version").json()["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server.get("/load").json(), json!({ "server_load": 0 }));
    assert_eq!(server.get("/nowhere").error(), (404, "not_found".into(), Value::Null));
    assert_eq!(server.get("/v1/images/generations").error().0, 405);
    assert!(server.get("/").text().contains("<!doctype html>"));

    let reply = server.exchange(&post(br#"{"prompt": "1"}"#, "X-Request-Id: mine\r\n"));
    assert_eq!(reply.header("x-request-id"), Some("mine"));
    assert!(server.get("/health").header("x-request-id").is_some_and(|name| name.starts_with("req-")));
    let text = server.exchange(b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\n{\"prompt\": \"1\"}");
    assert_eq!(text.error().0, 415);
}

#[test]
fn metrics_are_prometheus_and_add_up() {
    let server = Server::start(&[]);
    server.images(r#"{"prompt": "1", "n": 2}"#);
    assert_eq!(server.post("{").status, 400);
    let text = server.get("/metrics").text();
    let mut known = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert!(known.insert(kind.split(' ').next().expect("a name").to_string()), "{line} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(known.contains(name) || family.is_some_and(|family| known.contains(family)), "{line}");
        }
    }
    assert_eq!(server.figure("smalti_images_total{task=\"c2i\"}"), 2.0);
    assert_eq!(server.figure("smalti_generation_tokens_total"), 32.0);
    assert_eq!(server.figure("smalti_e2e_request_latency_seconds_count"), 1.0);
    assert_eq!(server.figure("smalti_stage_seconds_count{stage=\"image_encode\"}"), 2.0);
    for stage in ["decode", "vq_decode"] {
        let labels = format!("{{stage=\"{stage}\"}}");
        assert_eq!(server.figure(&format!("smalti_stage_seconds_count{labels}")), 1.0);
        assert!(server.figure(&format!("smalti_stage_seconds_sum{labels}")) > 0.0);
    }
    assert!(text.contains(",backend=\"cpu\",device=\"cpu ("), "{text}");
    assert!(cfg!(not(target_os = "linux")) || server.figure("process_resident_memory_bytes") > 1e6);
    for idle in ["smalti_requests_running", "smalti_requests_waiting"] {
        assert_eq!(server.figure(idle), 0.0);
    }
}
