//! `smalti selftest` on the CPU, its small models.

use crate::program::Folder;

fn run(args: &[&str]) -> crate::program::Run {
    Folder::new().run(&[&["selftest", "--quick", "--device", "cpu"], args].concat())
}

#[test]
fn a_part_is_checked_by_model_and_op() {
    let run = run(&["--model", "GPT", "--op", "attention,sample"]);
    let lines = run.lines();
    let ops: Vec<&str> = lines[2..lines.len() - 1].iter().filter_map(|line| line.strip_prefix("  ")).collect();
    assert!(lines.iter().all(|line| !line.starts_with("windows")), "{lines:?}");
    assert!(ops.len() > 1 && ops.iter().all(|op| op.starts_with("attention ") || op.starts_with("sample ")), "{ops:?}");
    assert!(lines.last().is_some_and(|line| line.starts_with(&format!("{} checks right, 0 wrong", ops.len()))));
}

#[test]
fn names_that_are_none_are_errors_before_anything_runs() {
    for (args, said) in [
        (["--op", "attention,atention"], "--op `atention`: expected one of: embed; norm_qkv_rope; attention;"),
        (["--model", "XXXL"], "--model `XXXL`: expected one of: GPT of head_dim 64, 2 rows; GPT"),
    ] {
        let run = run(&args);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
    let run = run(&["--model", "GPT", "--op", "conv2d"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("--op conv2d: expected ops of the models with `GPT` in their names"), "{}", run.stderr);
}
