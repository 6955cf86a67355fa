//! `smalti generate`: files, their text, and which settings pictures depend on.

use serde_json::Value;
use smalti::checkpoint::{Checkpoint, ConvertOptions, WeightsChoice, convert};
use smalti::generate::Codes;
use smalti::image::{read, read_png_text};

use super::program::{Folder, gpt, vq};

/// The codes that a run with these settings draws.
fn codes(args: &[&str]) -> Vec<Vec<u32>> {
    let folder = Folder::new();
    folder.generate(&[args, &["--codes", "codes.safetensors"]].concat()).lines();
    Codes::read(&folder.path("codes.safetensors")).unwrap().pictures
}

/// The files that a run into a folder writes.
fn pictures(args: &[&str]) -> Vec<(String, Vec<u8>)> {
    let folder = Folder::new();
    folder.generate(&[args, &["-o", "out/"]].concat()).lines();
    folder.files().into_iter().collect()
}

#[test]
fn one_picture_goes_into_one_file() {
    let folder = Folder::new();
    let run = folder.generate(&["--class", "3", "-o", "a.png"]);
    assert_eq!(run.lines(), ["a.png"]);
    assert!(run.stderr.contains("n_head 2 is a guess") && run.stderr.contains("tokens/s"), "{}", run.stderr);
    let picture = read(&folder.path("a.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 64));
    assert_eq!(folder.names(), ["a.png"]);
}

#[test]
fn a_grid_has_four_pictures_in_a_row() {
    let folder = Folder::new();
    folder.generate(&["--class", "3,4", "--count", "3"]).lines();
    let grid = read(&folder.path("sample_c2i.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (4 * 66 + 2, 2 * 66 + 2));
}

#[test]
fn a_folder_gets_a_file_per_picture_with_its_text() {
    let folder = Folder::new();
    let args = ["--class", "7,1", "--count", "2", "--first-image", "5", "--temperature", "0.7", "--seed", "9"];
    let run = folder.generate(&[&args[..], &["-o", "new/deep/"]].concat());
    let expected = ["000005", "000006", "000007", "000008"].map(|number| format!("new/deep/{number}.png"));
    assert_eq!(run.lines(), expected);
    assert_eq!(folder.names(), expected);

    let text = read_png_text(&folder.path(&expected[2])).unwrap();
    assert_eq!(text[0], ("Software".into(), format!("smalti {}", env!("CARGO_PKG_VERSION"))));
    assert_eq!(text[1].0, "parameters");
    let told: Value = serde_json::from_str(&text[1].1).unwrap();
    assert_eq!(told["images"], serde_json::json!([{ "image": 7, "class": 1, "class_name": null }]));
    assert_eq!((&told["options"]["seed"], &told["image_size"]), (&9.into(), &64.into()));
    assert_eq!((&told["gpt_ckpt"], &told["vq_ckpt"]), (&"gpt.pt".into(), &"vq.pt".into()));
    assert_eq!(told["options"]["temperature"].to_string(), "0.7");
}

#[test]
fn decoding_the_codes_gives_the_same_files() {
    let folder = Folder::new();
    folder.generate(&["--class", "2,8", "--first-image", "3", "-o", "a.png", "--codes", "c.safetensors"]).lines();
    folder.generate(&["--class", "2,8", "--first-image", "3", "-o", "many/"]).lines();
    folder.run(&["decode", "c.safetensors", "--vq-ckpt", &vq(), "-o", "b.png"]).lines();
    let run = folder.run(&["decode", "c.safetensors", "--vq-ckpt", &vq(), "-o", "again/"]);
    assert_eq!(run.lines(), ["again/000003.png", "again/000004.png"]);
    let files = folder.files();
    assert!(files["a.png"] == files["b.png"]);
    assert!(files["many/000003.png"] == files["again/000003.png"]);
    assert!(files["many/000004.png"] == files["again/000004.png"]);
}

#[test]
fn pictures_depend_on_seed_class_and_number_alone() {
    let args = ["--class", "3", "--count", "5", "--seed", "11"];
    let all = pictures(&args);
    assert_eq!(all.len(), 5);
    for how in [&["--threads", "1"][..], &["--threads", "2"], &["--batch-size", "1"], &["--batch-size", "4"], &[]] {
        assert!(pictures(&[&args, how].concat()) == all, "{how:?}");
    }
    let one = pictures(&["--class", "3", "--first-image", "2", "--count", "1", "--seed", "11"]);
    assert!(one == all[2..3]);
    let others: Vec<_> = all.iter().filter(|(_, bytes)| *bytes != all[0].1).collect();
    assert_eq!(others.len(), 4, "copies differ");
}

#[test]
fn seeds_count_unless_greedy() {
    let class = ["--class", "3", "--count", "2"];
    let with = |more: &[&str]| codes(&[&class, more].concat());
    assert_ne!(with(&["--seed", "1"]), with(&["--seed", "2"]));
    assert_eq!(with(&["--seed", "1", "--greedy"]), with(&["--seed", "2", "--greedy"]));
    assert_eq!(with(&["--top-k", "1"]), with(&["--greedy"]));
    assert_ne!(with(&["--greedy"]), with(&["--greedy", "--cfg-scale", "1"]));
}

#[test]
fn limits_beyond_the_vocabulary_mean_all_of_it() {
    let all = codes(&["--class", "3", "--top-k", "0"]);
    assert_eq!(codes(&["--class", "3", "--top-k", "256"]), all);
    assert_eq!(codes(&["--class", "3", "--top-k", "99999999"]), all);
}

#[test]
fn quiet_prints_paths_alone() {
    let folder = Folder::new();
    let run = folder.generate(&["--class", "1,2", "--quiet", "-o", "out/", "--codes", "c.safetensors"]);
    assert_eq!(run.lines(), ["out/000000.png", "out/000001.png", "c.safetensors"]);
    assert_eq!(run.stderr, "");
}

#[test]
fn names_from_the_metadata_mean_classes() {
    let folder = Folder::new();
    let checkpoint = Checkpoint::open(gpt().as_ref(), WeightsChoice::Model).unwrap();
    let names = ["sea", "red house", "green house", "tree, oak", "cat", "dog", "sun", "moon", "ship", "boat"];
    let metadata = [("class_names".to_string(), serde_json::to_string(&names).unwrap())];
    let named = Checkpoint::from_tensors("named", checkpoint.tensors().clone(), metadata.into());
    convert(&named, &folder.path("named.safetensors"), &ConvertOptions::default()).unwrap();

    let run = |classes: &str, output: &str| {
        let models = ["generate", "--gpt-ckpt", "named.safetensors", "--vq-ckpt", &vq()];
        folder.run(&[&models[..], &["--image-size", "64", "--class", classes, "-o", output]].concat())
    };
    run("OAK,Red-House", "names.png").lines();
    run("3,1", "numbers.png").lines();
    assert!(folder.files()["names.png"] == folder.files()["numbers.png"]);
    assert!(read_png_text(&folder.path("names.png")).unwrap()[1].1.contains(r#""class_name":"red house""#));

    let several = run("house", "no.png");
    assert_eq!(several.code, 2);
    assert!(several.stderr.contains("1 red house, 2 green house"), "{}", several.stderr);
    let unknown = run("shipp", "no.png");
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("did you mean 8 ship"), "{}", unknown.stderr);
}

#[test]
fn names_of_a_wrong_form_are_told_of() {
    let checkpoint = Checkpoint::open(gpt().as_ref(), WeightsChoice::Model).unwrap();
    for (names, found) in [("sea, house", "found another text"), (r#"["sea"]"#, "found 1 name")] {
        let folder = Folder::new();
        let metadata = [("class_names".to_string(), names.to_string())];
        let named = Checkpoint::from_tensors("named", checkpoint.tensors().clone(), metadata.into());
        convert(&named, &folder.path("named.safetensors"), &ConvertOptions::default()).unwrap();
        let models = ["generate", "--gpt-ckpt", "named.safetensors", "--vq-ckpt", &vq()];
        let run = folder.run(&[&models[..], &["--image-size", "64", "--class", "1"]].concat());
        assert_eq!(run.lines(), ["sample_c2i.png"]);
        let note = format!("note: class_names ignored: expected a JSON list of 10 names, {found}");
        assert!(run.stderr.contains(&note), "{}", run.stderr);
    }
}

#[test]
fn models_come_from_the_environment_too() {
    let folder = Folder::new();
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("smalti");
    command.current_dir(folder.path("")).env("SMALTI_GPT_CKPT", gpt()).env("SMALTI_VQ_CKPT", vq());
    command.args(["generate", "--class", "0", "--image-size", "64"]).assert().success().stdout("sample_c2i.png\n");
}
