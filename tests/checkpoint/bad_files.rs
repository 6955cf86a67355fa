//! Files that must be refused, and that the user is told what, where, expected, found, and the cure.

use smalti::Error;
use smalti::checkpoint::{Checkpoint, WeightsChoice};

use crate::files::{Pickle, Scratch, data, has, refusal, safetensors, torch, torch_of_one, zip};

#[test]
fn no_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(&folder.path().join("none.pt"), WeightsChoice::Model).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    has(&error.to_string(), &["open", "none.pt"]);
    has(
        &Checkpoint::open("/dev/null".as_ref(), WeightsChoice::Model).unwrap_err().to_string(),
        &["not a regular file"],
    );
}

#[test]
fn other_files() {
    has(&refusal(b""), &["empty", "download"]);
    has(&refusal(b"GIF89a and more"), &["neither", "47, 49, 46"]);
    has(&refusal(b"version https://git-lfs.github.com/spec/v1\n"), &["Git LFS", "git lfs pull"]);
    has(&refusal(b"PK"), &["zip"]);
}

#[test]
fn truncated_anywhere() {
    for file in ["golden/c2i/gpt.pt", "golden/t5/model-00001-of-00002.safetensors"] {
        let bytes = std::fs::read(data(file)).unwrap();
        for kept in [1, 7, 9, 100, bytes.len() / 2, bytes.len() - 1] {
            refusal(&bytes[..kept]);
        }
        let text = refusal(&bytes[..bytes.len() / 2]);
        has(&text, &["incomplete"]);
    }
}

#[test]
fn legacy_torch() {
    let text = refusal(&std::fs::read(data("data/legacy.pt")).unwrap());
    has(&text, &["before 1.6", "re-save", "torch.save"]);
}

#[test]
fn torchscript() {
    has(&refusal(&std::fs::read(data("data/torchscript.pt")).unwrap()), &["TorchScript", "state_dict"]);
}

#[test]
fn zip_entries() {
    let pickle = Pickle::new().op("}").text("x").tensor("FloatStorage", 1, 0, &[1], &[1]).op("s").end();
    has(&refusal(&zip(&[("a/data.pkl", 0, &pickle)])), &["`x`", "a/data/0", "none"]);
    has(&refusal(&zip(&[("a/data/0", 0, &[0; 4])])), &["data.pkl", "none"]);
    has(&refusal(&zip(&[("a/data.pkl", 8, &pickle), ("a/data/0", 0, &[0; 4])])), &["a/data.pkl", "stored", "Deflate"]);
    let text = refusal(&zip(&[("a/data.pkl", 0, &pickle), ("a/data/0", 8, &[0; 4])]));
    has(&text, &["`x`", "a/data/0", "stored", "Deflate", "zip -0"]);
    has(&refusal(&zip(&[("a/data.pkl", 0, &pickle), ("b/data.pkl", 0, &pickle)])), &["a/data.pkl", "b/data.pkl"]);
    let big = zip(&[("a/data.pkl", 0, &pickle), ("a/byteorder", 0, b"big"), ("a/data/0", 0, &[0; 4])]);
    has(&refusal(&big), &["`little`", "`big`"]);
}

#[test]
fn an_entry_beyond_the_file() {
    let pickle = Pickle::new().op("}").text("x").tensor("FloatStorage", 1, 0, &[1], &[1]).op("s").end();
    let mut file = zip(&[("a/data.pkl", 0, &pickle), ("a/data/0", 0, &[0; 4])]);
    // The last directory record's two sizes.
    let record = file.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    file[record + 20..record + 28].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f]);
    has(&refusal(&file), &["a/data/0", "2147483647", "beyond"]);
}

#[test]
fn a_pickle_that_calls() {
    // What pickle.dumps writes for an object whose __reduce__ is (os.system, ("touch …",)).
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("witness");
    let command = format!("touch {}", witness.display());
    for module in ["os", "posix", "nt"] {
        let call = Pickle::new().global(module, "system").text(&command).op([0x85]).op("R");
        has(&refusal(&torch(&call.clone().end(), &[])), &[&format!("{module}.system"), "runs nothing", "re-save"]);
        let model = Pickle::new().op("}").text("model").global(module, "system").text(&command).op([0x85]).op("Rs");
        has(&refusal(&torch(&model.end(), &[])), &["`model`", "expected tensors", &format!("`{module}.system`")]);
    }
    // The same by BUILD, NEWOBJ and a call of a call's result.
    let eval = Pickle::new().global("builtins", "eval").text("1").op([0x85, 0x81]).text("2").op([0x85]).op("R}b");
    has(&refusal(&torch(&eval.end(), &[])), &["builtins.eval"]);
    assert!(!witness.exists());
}

#[test]
fn a_weight_that_needs_a_call() {
    let pickle = Pickle::new().op("}").text("tok_embeddings.weight").global("evil", "make").op(")R").op("s");
    let pickle = pickle.text("x").tensor("FloatStorage", 1, 0, &[1], &[1]).op("s").end();
    let checkpoint = Scratch::new(&torch(&pickle, &[0; 4])).open().unwrap();
    let error = smalti::config::GptConfig::detect(&checkpoint, None).unwrap_err();
    has(&error.to_string(), &["tok_embeddings.weight", "evil.make"]);
}

#[test]
fn storages_and_shapes() {
    let four = [0; 16];
    has(&refusal(&torch_of_one(5, 0, &[5], &[1], &four)), &["`x`", "data/0", "20 bytes", "found 16"]);
    has(&refusal(&torch_of_one(4, 0, &[5], &[1], &four)), &["`x`", "shorter", "20 bytes", "found 16"]);
    has(&refusal(&torch_of_one(4, 1, &[4], &[1], &four)), &["`x`", "shorter"]);
    has(&refusal(&torch_of_one(4, 0, &[2, 2], &[3, 1], &four)), &["`x`", "shorter"]);
    has(&refusal(&torch_of_one(4, i64::MAX, &[4], &[1], &four)), &["`x`", "overflows"]);
    has(&refusal(&torch_of_one(4, 0, &[i64::MAX, i64::MAX], &[i64::MAX, 1], &four)), &["`x`", "overflows"]);
    has(&refusal(&torch_of_one(i64::MAX, 0, &[4], &[1], &four)), &["`x`", "overflows"]);
    has(&refusal(&torch_of_one(4, 0, &[i64::MAX / 2], &[1], &four)), &["`x`"]);
    has(&refusal(&torch_of_one(4, 0, &[-4], &[1], &four)), &["shape"]);
    has(&refusal(&torch_of_one(4, 0, &[4], &[-1], &four)), &["strides"]);
    has(&refusal(&torch_of_one(4, -1, &[4], &[1], &four)), &["offset"]);
    has(&refusal(&torch_of_one(-4, 0, &[4], &[1], &four)), &["length"]);
    has(&refusal(&torch_of_one(4, 0, &[4, 4], &[1], &four)), &["strides"]);
    // A view that repeats its elements asks for 4 TB of a file of 16 bytes.
    has(&refusal(&torch_of_one(4, 0, &[1 << 40, 4], &[0, 1], &four)), &["`x`", "at most", "contiguous"]);
}

#[test]
fn pickles_that_are_none() {
    let refused = |pickle: &[u8]| refusal(&torch(pickle, &[]));
    has(&refused(b""), &["data.pkl", "ends"]);
    has(&refused(b"\x80\x01."), &["protocol", "found 1"]);
    has(&refused(b"\x80\x02."), &["value on the stack"]);
    has(&refused(b"\x80\x02N."), &["dict", "None"]);
    has(&refused(b"\x80\x02}."), &["an empty dict"]);
    has(&refused(b"\x80\x02h\x05."), &["memo entry 5"]);
    has(&refused(b"\x80\x02t."), &["mark"]);
    has(&refused(b"\x80\x02K\x01\x85R."), &["value on the stack"]);
    has(&refused(b"\x80\x02(K\x01K\x02K\x03d."), &["without a value"]);
    has(&refused(b"\x80\x02I1\n."), &["opcode", "0x49"]);
    has(&refused(b"\x80\x02X\xff\xff\xff\xffabc"), &["ends"]);
    has(&refused(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc"), &["ends"]);
    has(&refused(b"\x80\x02K\x01Q."), &["storage"]);
    has(&refused(&Pickle::new().op("}").text("weights").int(1).op("s").end()), &["`weights`"]);
}

#[test]
fn lying_safetensors_headers() {
    let tensor = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    has(&refusal(&safetensors(&tensor("F32", "[4]", 0, 16), &[0; 12])), &["16 bytes", "12", "incomplete"]);
    has(&refusal(&safetensors(&tensor("F32", "[4]", 0, 16), &[0; 20])), &["16 bytes", "20", "damaged"]);
    has(
        &refusal(&safetensors(&tensor("F32", "[5]", 0, 16), &[0; 16])),
        &["header", "`x`", "20 bytes", "found 16", "damaged"],
    );
    has(&refusal(&safetensors(&tensor("F32", "[4]", 4, 20), &[0; 20])), &["header", "x"]);
    has(&refusal(&safetensors(&tensor("F32", "[4]", 16, 0), &[0; 16])), &["header", "`x`", "16 bytes", "damaged"]);
    let overflowing = tensor("F32", "[18446744073709551615,2]", 0, 16);
    has(&refusal(&safetensors(&overflowing, &[0; 16])), &["header", "`x`", "found 16 bytes", "damaged"]);
    has(&refusal(&safetensors(&tensor("F33", "[4]", 0, 16), &[0; 16])), &["header", "F33"]);
    has(&refusal(&safetensors(&tensor("F32", "[-4]", 0, 16), &[0; 16])), &["header"]);
    has(&refusal(&safetensors("{\"x\"", &[])), &["header"]);
    // A header longer than the file, and one beyond any use.
    let mut file = safetensors("{}", &[]);
    file[0] = 200;
    has(&refusal(&file), &["header of 200 bytes", "incomplete"]);
    file[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    has(&refusal(&file), &["header of at most"]);
    // Tensors whose lengths only add up when the sum wraps around.
    let eighth = 1u64 << 61;
    let entries: Vec<String> = (0..8)
        .map(|i| {
            let end = (i + 1u64).wrapping_mul(eighth).wrapping_sub(u64::from(i == 7));
            let shape = end - i * eighth;
            format!(r#""{i}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[{},{end}]}}"#, i * eighth)
        })
        .collect();
    has(&refusal(&safetensors(&format!("{{{}}}", entries.join(",")), &[])), &["header"]);
}
