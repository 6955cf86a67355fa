//! Conversion and random checkpoints: round trips, alignment, and nothing left behind on failure.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use smalti::checkpoint::{Checkpoint, ConvertOptions, DType, Entry, convert, random, write_random, write_safetensors};
use smalti::config::{Condition, GptConfig, ModelConfig, PRESETS, TensorSpec, VqConfig};

use crate::files::{data, has, open};

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn golden_checkpoints_survive() {
    for (file, n_head) in [
        ("c2i/gpt.pt", None),
        ("c2i-head100-bf16/gpt.pt", Some(2)),
        ("t2i/gpt.pt", None),
        ("vq16/vq.pt", None),
        ("vq8/vq.pt", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.safetensors");
        let input = open(&data("golden").join(file));
        let converted = convert(&input, &out, &ConvertOptions { dtype: None, n_head }).unwrap();
        assert_eq!(converted.bytes, std::fs::metadata(&out).unwrap().len());
        let output = open(&out);
        // The number of heads is in the file now: no flag, no guess.
        assert_eq!(ModelConfig::detect(&output, None).unwrap(), (converted.config.clone(), None), "{file}");
        assert_eq!(output.metadata(), &converted.config.metadata(), "{file}");
        assert_eq!(output.tensors().len(), converted.config.tensors().len(), "{file}");
        for (name, tensor) in output.tensors() {
            let before = input.get(name).unwrap();
            assert_eq!((tensor.dtype(), tensor.shape()), (before.dtype(), before.shape()), "{file}: {name}");
            assert_eq!(tensor.bytes().unwrap(), before.bytes().unwrap(), "{file}: {name}");
            let aligned = 1 << tensor.bytes().unwrap().len().trailing_zeros().min(6);
            assert_eq!(tensor.bytes().unwrap().as_ptr() as usize % aligned, 0, "{file}: {name} is not aligned");
        }
        assert_eq!(files_in(folder.path()), ["out.safetensors"]);
    }
}

#[test]
fn types_are_converted() {
    let folder = tempfile::tempdir().unwrap();
    let input = open(&data("golden/t2i/gpt.pt"));
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let out = folder.path().join(dtype.name());
        convert(&input, &out, &ConvertOptions { dtype: Some(dtype), n_head: None }).unwrap();
        let output = open(&out);
        for (name, tensor) in output.tensors() {
            assert_eq!(tensor.dtype(), dtype);
            let before = input.get(name).unwrap();
            match dtype {
                DType::BF16 => assert_eq!(tensor.to_bf16(), before.to_bf16(), "{name}"),
                _ => assert_eq!(tensor.to_f32(), before.to_f32(), "{name}"),
            }
        }
    }
    let error = convert(&input, &folder.path().join("no"), &ConvertOptions { dtype: Some(DType::I64), n_head: None });
    assert!(error.unwrap_err().is_usage());
}

#[test]
fn strided_tensors_are_written_in_order() {
    let config = ModelConfig::Vq(VqConfig { encoder_ch_mult: None, ..VqConfig::released(&[1]) });
    let checkpoint = random("vq", &Entry::all(config.tensors(), DType::F32), BTreeMap::new(), 3);
    let mut tensors = checkpoint.tensors().clone();
    let name = "quantize.embedding.weight";
    let (bytes, range) = tensors[name].storage().unwrap();
    let turned =
        smalti::checkpoint::Tensor::strided(DType::F32, vec![16384, 8], vec![1, 16384], bytes, range.start).unwrap();
    let expected = turned.to_f32();
    assert_eq!(expected[1], tensors[name].to_f32()[16384]);
    tensors.insert(name.into(), turned);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let input = Checkpoint::from_tensors("vq", tensors, BTreeMap::new());
    convert(&input, &out, &ConvertOptions::default()).unwrap();
    assert_eq!(open(&out).get(name).unwrap().to_f32(), expected);
}

#[test]
fn image_size_and_class_names_go_along() {
    let config = ModelConfig::Gpt(GptConfig {
        dim: 64,
        n_layer: 1,
        n_head: 4,
        hidden_dim: 256,
        vocab_size: 8,
        condition: Condition::Class { num_classes: 2 },
        norm_eps: 1e-6,
        rope_base: 1234.5,
    });
    let mut metadata = config.metadata();
    metadata.insert("class_names".into(), r#"["cat","dog"]"#.into());
    metadata.insert("unrelated".into(), "x".into());
    let entries = Entry::all(config.tensors(), DType::BF16);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (path, image_size) in [("my_256.pt", Some("256")), ("my.pt", None)] {
        convert(&random(path, &entries, metadata.clone(), 0), &out, &ConvertOptions::default()).unwrap();
        let output = open(&out);
        assert_eq!(output.metadata()["class_names"], r#"["cat","dog"]"#);
        assert_eq!(output.metadata().get("image_size").map(String::as_str), image_size);
        assert!(!output.metadata().contains_key("unrelated"));
        assert_eq!(ModelConfig::detect(&output, None).unwrap().0, config);
    }
}

#[test]
fn a_failure_leaves_nothing_and_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::write(&out, "before").unwrap();
    let entry = Entry { name: "x".into(), dtype: DType::F32, shape: vec![2] };
    let full = write_safetensors(&out, std::slice::from_ref(&entry), &BTreeMap::new(), |_, out| {
        out.write_all(&[0; 4])?;
        Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"))
    });
    has(&full.unwrap_err().to_string(), &["out", "no space left"]);
    let short = write_safetensors(&out, &[entry], &BTreeMap::new(), |_, out| out.write_all(&[0; 4]));
    has(&short.unwrap_err().to_string(), &["`x`", "8 bytes", "found 4"]);
    assert_eq!(files_in(folder.path()), ["out"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"before");

    let input = open(&data("golden/c2i/gpt.pt"));
    let missing = convert(&input, &folder.path().join("no/out"), &ConvertOptions::default());
    has(&missing.unwrap_err().to_string(), &["create a file in", "no"]);
}

#[cfg(unix)]
#[test]
fn a_converted_file_has_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (plain, out) = (folder.path().join("plain"), folder.path().join("out"));
    std::fs::write(&plain, "").unwrap();
    write_safetensors(&out, &[], &BTreeMap::new(), |_, _| Ok(())).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&out), mode(&plain));
}

#[test]
fn random_weights_are_those_they_promise() {
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.into(), shape: shape.to_vec() };
    let specs = vec![
        spec("layers.0.attention.wo.weight", &[300, 1000]),
        spec("norm.weight", &[5]),
        spec("x.bias", &[5]),
        spec("conv.weight", &[64, 16, 3, 3]),
    ];
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let entries = Entry::all(specs.clone(), dtype);
        let made = random("made", &entries, BTreeMap::new(), 7);
        let values = |name: &str| made.get(name).unwrap().to_f32();
        assert_eq!((values("norm.weight"), values("x.bias")), (vec![1.0; 5], vec![0.0; 5]));
        for (name, std) in [("layers.0.attention.wo.weight", 0.02), ("conv.weight", 1.0 / 12.0)] {
            let values = values(name);
            let count = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / count;
            // Five deviations of the mean, and of the variance of a bounded distribution.
            assert!(mean.abs() < 5.0 * std / count.sqrt(), "{name}: mean {mean}");
            assert!((variance.sqrt() / std - 1.0).abs() < 5.0 / count.sqrt(), "{name}: deviation {}", variance.sqrt());
        }
        // In memory and streamed are the same; another seed is another file.
        let folder = tempfile::tempdir().unwrap();
        write_random(&folder.path().join("file"), &entries, &BTreeMap::new(), 7).unwrap();
        let written = open(&folder.path().join("file"));
        for entry in &entries {
            assert_eq!(written.get(&entry.name).unwrap().bytes(), made.get(&entry.name).unwrap().bytes());
        }
        let other = random("other", &entries, BTreeMap::new(), 8);
        assert_ne!(other.get("conv.weight").unwrap().bytes(), made.get("conv.weight").unwrap().bytes());
    }
}

#[test]
fn a_released_size_is_detected_from_its_random_file() {
    let config = ModelConfig::Gpt(GptConfig::of_preset(&PRESETS[0], Condition::Class { num_classes: 1000 }));
    let checkpoint = random("gpt", &Entry::all(config.tensors(), DType::BF16), BTreeMap::new(), 0);
    assert_eq!(ModelConfig::detect(&checkpoint, None).unwrap(), (config, None));
}
