//! The model that is built in: the program draws with it when it is told nothing else, and what it draws is what was
//! asked for, as a classifier sees it that took no part in its training.

#![cfg(feature = "demo")]

mod eye;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use eye::{Eye, Layout, Seen};
use smalti::image::{Rgb8, read};

/// The program in a folder, with nothing told by the environment.
fn smalti(folder: &Path) -> Command {
    let mut command: Command = assert_cmd::cargo::cargo_bin_cmd!("smalti");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SMALTI_")) {
        command.env_remove(name);
    }
    command.current_dir(folder);
    command
}

/// What the eye says of each picture that a command draws.
fn look(eye: &Eye, arguments: &[&str]) -> Vec<Seen> {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("pictures/");
    let run =
        |command: &mut Command| command.args(arguments).arg("--output").arg(&output).arg("--quiet").assert().success();
    // The same device everywhere: on another one rounding may change codes.
    run(smalti(Path::new(env!("CARGO_MANIFEST_DIR"))).args(["generate", "--device", "cpu"]));
    let mut paths: Vec<_> = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let pictures: Vec<Rgb8> = paths.iter().map(|path| read(path).unwrap()).collect();
    pictures.iter().map(|picture| eye.look(picture)).collect()
}

/// The share of pictures for which `right` holds.
fn share(seen: &[Seen], right: impl Fn(usize, &Seen) -> bool) -> f64 {
    seen.iter().enumerate().filter(|(picture, seen)| right(*picture, seen)).count() as f64 / seen.len() as f64
}

#[test]
fn asked_for_nothing_it_draws_a_grid() {
    let folder = tempfile::tempdir().unwrap();
    smalti(folder.path()).assert().success().stdout("smalti.png\n");
    let grid = read(&folder.path().join("smalti.png")).unwrap();
    // Four by four of 128 pixels, lines of two between them.
    assert_eq!((grid.width(), grid.height()), (522, 522));
}

#[test]
fn the_readmes_commands_draw() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let whole = |line: &&str| {
        line.starts_with("smalti generate") && !line.contains("-ckpt") && !line.ends_with('\\') && !line.contains("  ")
    };
    let commands: Vec<&str> = readme.lines().filter(whole).collect();
    assert!(commands.len() >= 2, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    for command in commands {
        // Every other part is quoted, one argument.
        let parts = command.split('"').enumerate();
        let words = parts.flat_map(|(i, part)| if i % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
        smalti(folder.path()).args(words.skip(1)).assert().success();
    }
    assert!(folder.path().join("sample_t2i.png").is_file() && folder.path().join("pictures").is_dir());
}

#[test]
fn classes_are_seen_as_what_they_are() {
    const EACH: usize = 4;
    let eye = Eye::open();
    let kinds = eye.kinds.len();
    let seen = look(&eye, &["--class", &eye.kinds.join(","), "--count", &EACH.to_string()]);
    assert_eq!(seen.len(), kinds * EACH);
    let right = share(&seen, |picture, seen| seen.first.0 == picture / EACH);
    assert!(right >= 0.9, "{right} of the pictures show their class");
    let wrong = share(&seen, |picture, seen| seen.first.0 == (picture / EACH + 7) % kinds);
    assert!(wrong < 0.1, "{wrong} of the pictures show the class that was asked of another");
}

/// A thing that is asked for: a kind for each number, and a colour, so that neighbours share neither.
fn thing(eye: &Eye, number: usize) -> (usize, usize) {
    (number % eye.kinds.len(), 3 * number % eye.colours.len())
}

/// "an orange cat".
fn phrase(eye: &Eye, (kind, colour): (usize, usize)) -> String {
    let (kind, colour) = (&eye.kinds[kind], &eye.colours[colour]);
    let article = if colour.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {colour} {kind}")
}

#[test]
fn prompts_are_seen_as_they_were_said() {
    let eye = Eye::open();
    let count = eye.kinds.len();
    let prompts: Vec<String> = (0..count).map(|number| phrase(&eye, thing(&eye, number))).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let seen = look(&eye, &[prompts.as_slice(), &["--count", "3"]].concat());
    assert_eq!(seen.len(), 3 * count);
    let asked = |picture: usize| thing(&eye, picture / 3);
    let kinds = share(&seen, |picture, seen| seen.first.0 == asked(picture).0);
    let colours = share(&seen, |picture, seen| seen.first.1 == asked(picture).1);
    let told = format!("{kinds} of the pictures show what was said, {colours} in its colour");
    println!("{told}");
    assert!(kinds >= 0.8 && colours >= 0.75, "{told}");
    let alone = share(&seen, |_, seen| seen.layout == Layout::Single);
    assert!(alone >= 0.9, "{alone} of the pictures show one thing alone");
    let others = share(&seen, |picture, seen| seen.first.0 == asked(picture + 21).0);
    assert!(others < 0.1, "{others} of the pictures show what was said of another");
}

#[test]
fn two_things_lie_as_they_were_said() {
    let eye = Eye::open();
    let count = eye.kinds.len();
    // Every kind is the first of a pair once and the second once; half lie one above the other, half of all are said
    // from the other side.
    let pair = |number: usize| (thing(&eye, number), thing(&eye, number + 11));
    let prompts: Vec<String> = (0..count)
        .map(|number| {
            let (first, second) = pair(number);
            let (first, second) = (phrase(&eye, first), phrase(&eye, second));
            match number % 4 {
                0 => format!("{first} left of {second}"),
                1 => format!("{first} above {second}"),
                2 => format!("{second} right of {first}"),
                _ => format!("{second} below {first}"),
            }
        })
        .collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let seen = look(&eye, &[prompts.as_slice(), &["--count", "2"]].concat());
    let asked = |picture: usize| {
        let layout = if (picture / 2).is_multiple_of(2) { Layout::Beside } else { Layout::Stacked };
        (layout, pair(picture / 2))
    };
    let layouts = share(&seen, |picture, seen| seen.layout == asked(picture).0);
    // Of all things, how many are seen where they were said; and where the other one was said.
    let things = |right: &dyn Fn((usize, usize), (usize, usize)) -> bool| {
        let first = share(&seen, |picture, seen| right(seen.first, asked(picture).1.0));
        let second = share(&seen, |picture, seen| right(seen.second, asked(picture).1.1));
        (first + second) / 2.0
    };
    let kinds = things(&|seen, asked| seen.0 == asked.0);
    let colours = things(&|seen, asked| seen.1 == asked.1);
    let both = share(&seen, |picture, seen| {
        let (first, second) = asked(picture).1;
        (seen.first.0, seen.second.0) == (first.0, second.0)
    });
    let exchanged = share(&seen, |picture, seen| {
        let (first, second) = asked(picture).1;
        seen.first.0 == second.0 || seen.second.0 == first.0
    });
    let told = format!(
        "{layouts} lie as was said; of the things {kinds} are seen in their places, {colours} in their colours; of the \
         pictures {both} show both in place, {exchanged} one in the other's"
    );
    println!("{told}");
    assert!(layouts >= 0.9 && kinds > 0.5 && colours > 0.5 && both > 0.5 && exchanged < 0.1, "{told}");
}

#[test]
fn the_sailboat_lies_left_of_the_moon() {
    let eye = Eye::open();
    let place = |names: &[String], name: &str| names.iter().position(|other| other == name).expect("the eye knows it");
    let named = |kind: &str, colour: &str| (place(&eye.kinds, kind), place(&eye.colours, colour));
    let (sailboat, moon) = (named("sailboat", "red"), named("moon", "yellow"));
    let seen = look(&eye, &["a red sailboat left of a yellow moon at night", "--count", "64"]);
    let beside = share(&seen, |_, seen| seen.layout == Layout::Beside);
    let kinds = share(&seen, |_, seen| (seen.first.0, seen.second.0) == (sailboat.0, moon.0));
    let colours = share(&seen, |_, seen| (seen.first.1, seen.second.1) == (sailboat.1, moon.1));
    let exchanged = share(&seen, |_, seen| (seen.first.0, seen.second.0) == (moon.0, sailboat.0));
    let told = format!(
        "{beside} show two things side by side, {kinds} a sailboat left of a moon, {colours} red left of yellow, \
         {exchanged} a moon left of a sailboat"
    );
    println!("{told}");
    assert!(beside >= 0.9 && kinds > 0.5 && colours > 0.5 && exchanged < 0.1, "{told}");
}

#[test]
fn its_files_are_small() {
    let size =
        |path: &Path| fs::read_dir(path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    assert!(size(&folder) + size(&folder.join("t5")) <= 16_000_000);
}

#[test]
fn a_seed_gives_one_picture_alone_and_among_others() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |arguments: &[&str]| smalti(folder.path()).arg("generate").args(arguments).assert().success();
    draw(&["--class", "fish,moon,star", "--seed", "5", "--output", "three/"]);
    draw(&["--class", "moon", "--seed", "5", "--first-image", "1", "--threads", "1", "--output", "one/"]);
    let prompts = ["a blue fish", "a yellow moon at night", "a red star above a green tree"];
    draw(&[&prompts, &["--seed", "5", "--output", "texts/"][..]].concat());
    draw(&[&prompts[1..2], &["--seed", "5", "--first-image", "1", "--threads", "1", "--output", "text/"]].concat());
    let pixels = |path: &str| read(&folder.path().join(path)).unwrap().into_pixels();
    assert_eq!(pixels("three/000001.png"), pixels("one/000001.png"));
    assert_eq!(pixels("texts/000001.png"), pixels("text/000001.png"));
}
