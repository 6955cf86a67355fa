//! Good files give the right tensors. The small PyTorch files are described in tests/data/README.md.

use std::collections::BTreeMap;

use smalti::checkpoint::{Checkpoint, DType, Entry, WeightsChoice, write_random, write_safetensors};

use crate::files::{Pickle, Scratch, data, has, open, torch, zip};

#[test]
fn every_pickle_protocol() {
    for protocol in 2..=5 {
        let checkpoint = open(&data(&format!("data/protocol_{protocol}.pt")));
        let expect = |name: &str, dtype: DType, shape: &[usize], values: &[f32]| {
            let tensor = checkpoint.get(name).unwrap_or_else(|| panic!("protocol {protocol}: no `{name}`"));
            assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape), "protocol {protocol}, `{name}`");
            assert_eq!(tensor.to_f32(), values, "protocol {protocol}, `{name}`");
        };
        let six = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        expect("f32", DType::F32, &[2, 3], &six);
        expect("f16", DType::F16, &[2, 3], &six);
        expect("bf16", DType::BF16, &[2, 3], &six);
        expect("i64", DType::I64, &[2, 3], &six);
        expect("parameter", DType::F32, &[2, 3], &six);
        expect("transposed", DType::F32, &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        expect("offset", DType::F32, &[2, 3], &[6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        expect("step", DType::F32, &[2, 3], &[1.0, 3.0, 5.0, 13.0, 15.0, 17.0]);
        expect("tied", DType::F32, &[2, 3], &six);
        expect("scalar", DType::F32, &[], &[5.0]);
        expect("empty", DType::F32, &[0, 3], &[]);
        assert!(checkpoint.get("transposed").unwrap().bytes().is_none());
        has(&checkpoint.skipped()["f64"], &["DoubleStorage"]);
        has(&checkpoint.skipped()["bool"], &["BoolStorage"]);
    }
}

#[test]
fn weights_beside_a_training_state() {
    let path = data("data/training.pt");
    let model = open(&path);
    assert_eq!(model.tensors().keys().collect::<Vec<_>>(), ["b", "w"]);
    assert_eq!(model.get("b").unwrap().to_f32(), [0.0, 1.0, 2.0]);
    let ema = Checkpoint::open(&path, WeightsChoice::Ema).unwrap();
    assert_eq!(ema.get("b").unwrap().to_f32(), [1000.0, 1001.0, 1002.0]);
    assert_ne!(model.id(), ema.id());
}

/// A dict of a dict under `key`, beside a number.
fn under(key: &str) -> Vec<u8> {
    let pickle = Pickle::new().op("}").text("steps").int(7).op("s").text(key).op("}");
    let pickle = pickle.text("x").tensor("FloatStorage", 1, 0, &[1], &[1]).op("ss").end();
    torch(&pickle, &2.5f32.to_le_bytes())
}

#[test]
fn the_dict_under_each_key() {
    for key in ["model", "module", "state_dict", "ema"] {
        assert_eq!(Scratch::new(&under(key)).open().unwrap().get("x").unwrap().to_f32(), [2.5], "{key}");
    }
    let error = Checkpoint::open(&Scratch::new(&under("model")).path, WeightsChoice::Ema).unwrap_err();
    has(&error.to_string(), &["`ema`", "`model`"]);
    has(&error.to_string(), &["`steps`"]);
    let golden = Checkpoint::open(&data("golden/c2i-head100-bf16/gpt.pt"), WeightsChoice::Ema);
    has(golden.unwrap_err().hint().unwrap(), &["--weights ema"]);
}

#[test]
fn a_call_that_no_weight_needs_is_skipped() {
    let pickle = Pickle::new().op("}").text("args").global("os", "system").text("exit").op(b"\x85Rs");
    let pickle = pickle.text("x").tensor("FloatStorage", 1, 0, &[1], &[1]).op("s").end();
    let checkpoint = Scratch::new(&torch(&pickle, &[0; 4])).open().unwrap();
    assert_eq!(checkpoint.tensors().len(), 1);
    has(&checkpoint.skipped()["args"], &["os.system"]);
}

#[test]
fn a_tensor_of_a_storage_made_by_a_call_is_skipped() {
    let pickle = Pickle::new().op("}").text("y").global("torch._utils", "_rebuild_tensor_v2").op("(");
    let pickle = pickle.global("torch.storage", "_load_from_bytes").op("C\x01a").op([0x85]).op("R");
    let pickle = pickle.int(0).ints(&[1]).ints(&[1]).op(b"\x89}tRs");
    let pickle = pickle.text("x").tensor("FloatStorage", 1, 0, &[1], &[1]).op("s").end();
    let checkpoint = Scratch::new(&torch(&pickle, &[0; 4])).open().unwrap();
    assert_eq!(checkpoint.tensors().len(), 1);
    has(&checkpoint.skipped()["y"], &["torch.storage._load_from_bytes"]);
}

#[test]
fn untyped_storages_with_the_type_in_the_call() {
    let pickle = Pickle::new().op("}").text("x").global("torch._utils", "_rebuild_tensor_v3").op("((");
    let pickle = pickle.text("storage").global("torch.storage", "UntypedStorage").text("0").text("cpu").int(8).op("tQ");
    let pickle = pickle.int(1).ints(&[3]).ints(&[1]).op(b"\x89}").global("torch", "bfloat16").op("tRs").end();
    let storage: Vec<u8> = [0x3f80u16, 0x4000, 0x4040, 0x4080].into_iter().flat_map(u16::to_le_bytes).collect();
    let checkpoint = Scratch::new(&torch(&pickle, &storage)).open().unwrap();
    assert_eq!(checkpoint.get("x").unwrap().to_f32(), [2.0, 3.0, 4.0]);
}

#[test]
fn a_pickle_at_the_top_of_the_zip() {
    let pickle = Pickle::new().op("}").text("x").tensor("FloatStorage", 1, 0, &[1], &[1]).op("s").end();
    let file = zip(&[("data.pkl", 0, &pickle), ("data/0", 0, &1f32.to_le_bytes())]);
    assert_eq!(Scratch::new(&file).open().unwrap().get("x").unwrap().to_f32(), [1.0]);
}

#[test]
fn hub_folders_whole_and_in_shards() {
    let folder = tempfile::tempdir().unwrap();
    let entry = |name: &str| Entry { name: name.into(), dtype: DType::F32, shape: vec![2] };
    let write = |file: &str, names: &[&str]| {
        let entries: Vec<Entry> = names.iter().map(|name| entry(name)).collect();
        write_random(&folder.path().join(file), &entries, &BTreeMap::new(), 0).unwrap();
    };
    let config = r#"{"n_head": 12, "image_size": 256, "name": "b", "tie": false, "none": null,
                     "encoder_ch_mult": [1, 2], "class_names": ["cat", "dog"], "nested": {"a": 1}}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    has(&Checkpoint::open(folder.path(), WeightsChoice::Model).unwrap_err().to_string(), &["model.safetensors"]);

    write("shard-1.safetensors", &["a", "b"]);
    write("shard-2.safetensors", &["b", "c"]);
    let index = folder.path().join("model.safetensors.index.json");
    let map = r#"{"weight_map": {"a": "shard-1.safetensors", "b": "shard-2.safetensors", "c": "shard-2.safetensors"}}"#;
    std::fs::write(&index, map).unwrap();
    let checkpoint = open(folder.path());
    assert_eq!(checkpoint.tensors().keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    let metadata: Vec<_> = checkpoint.metadata().iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let expected =
        [("class_names", r#"["cat","dog"]"#), ("image_size", "256"), ("n_head", "12"), ("name", "b"), ("tie", "false")];
    assert_eq!(metadata, expected);

    for (map, part) in [
        (r#"{"weight_map": {"z": "shard-1.safetensors"}}"#, "`z`"),
        (r#"{"weight_map": {"a": "../shard-1.safetensors"}}"#, "this folder"),
        (r#"{"weight_map": {"a": 1}}"#, "this folder"),
        (r#"{"weight_map": {"a": "shard-3.safetensors"}}"#, "shard-3"),
        ("[]", "weight_map"),
        ("{", "JSON"),
    ] {
        std::fs::write(&index, map).unwrap();
        has(&Checkpoint::open(folder.path(), WeightsChoice::Model).unwrap_err().to_string(), &[part]);
    }

    write("model.safetensors", &["whole"]);
    assert!(open(folder.path()).get("whole").is_some());
}

#[test]
fn a_sharded_text_encoder() {
    let checkpoint = open(&data("golden/t5"));
    assert!(checkpoint.tensors().len() > 10);
    assert_eq!(checkpoint.metadata()["model_type"], "t5");
}

#[test]
fn safetensors_of_every_type_and_metadata() {
    let scratch = Scratch::new(&[]);
    let entry = |name: &str, dtype| Entry { name: name.into(), dtype, shape: vec![3] };
    let entries = [entry("a", DType::F16), entry("b", DType::F32), entry("c", DType::I64), entry("d", DType::BF16)];
    let metadata = BTreeMap::from([("key".to_string(), "a \"quoted\" text".to_string())]);
    let bytes = write_safetensors(&scratch.path, &entries, &metadata, |entry, out| {
        for i in 1..=3i64 {
            match entry.dtype {
                DType::F32 => out.write_all(&(i as f32).to_le_bytes())?,
                DType::F16 => out.write_all(&half::f16::from_f32(i as f32).to_le_bytes())?,
                DType::BF16 => out.write_all(&half::bf16::from_f32(i as f32).to_le_bytes())?,
                DType::I64 => out.write_all(&i.to_le_bytes())?,
            }
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(bytes, std::fs::metadata(&scratch.path).unwrap().len());
    let checkpoint = scratch.open().unwrap();
    assert_eq!(checkpoint.metadata(), &metadata);
    for entry in &entries {
        let tensor = checkpoint.get(&entry.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.to_f32()), (entry.dtype, vec![1.0, 2.0, 3.0]));
    }
    // The reference reader agrees.
    let bytes = std::fs::read(&scratch.path).unwrap();
    assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().len(), 4);
}
