//! Compiles the kernels and the runtime with the machine's C++ compiler into one shared object for each build, and
//! into one that is a CUDA driver, too. Objects are kept by a hash of what they are made from, so that a changed kernel
//! costs one file.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-g1",
    "-fPIC",
    "-pthread",
    // Two shared objects with the same names live in one process.
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    // Kernels look at the same memory as several types, which nvcc allows.
    "-fno-strict-aliasing",
    // What is fused is said in the source.
    "-ffp-contract=off",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
];

/// One shared object.
struct Build {
    name: &'static str,
    /// What it is called, below the folder of the build.
    file: &'static str,
    /// Flags for the kernels alone.
    kernel_flags: Vec<&'static str>,
    /// Which files of the runtime and the driver it leaves out.
    without: &'static dyn Fn(&Path) -> bool,
}

struct Object {
    source: PathBuf,
    flags: Vec<String>,
    path: PathBuf,
}

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let kernels = here.join("../../kernels").canonicalize().expect("the kernels' folder");
    let own = ["kernels", "include", "runtime", "driver"].map(|folder| here.join(folder));
    let folders: Vec<PathBuf> = [kernels.clone()].into_iter().chain(own).collect();
    for folder in &folders {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CXX");

    let Some(compiler) = Compiler::find() else {
        let reason = "no C++ compiler was found when this was built: install g++ or clang++, or name one by CXX";
        println!("cargo:rustc-env=SIMT_MISSING={reason}");
        println!("cargo:rustc-env=SIMT_PLAIN=");
        println!("cargo:rustc-env=SIMT_CHECK=");
        println!("cargo:rustc-env=SIMT_DRIVER=");
        return;
    };
    println!("cargo:rustc-env=SIMT_MISSING=");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    // OUT_DIR is target/PROFILE/build/NAME/out: beside the profiles, so that all of them share the objects.
    let cache = out.ancestors().nth(4).expect("a folder of a profile").join("simt");
    fs::create_dir_all(&cache).expect("the objects' folder");

    let mut check_flags = vec!["-fsanitize=thread", "-DSIMT_CHECK"];
    check_flags.extend(compiler.check_flags());
    let builds = [
        Build {
            name: "plain",
            file: "libsimt_plain.so",
            kernel_flags: Vec::new(),
            without: &|path| is_driver(path) || is_check(path),
        },
        Build {
            name: "check",
            file: "libsimt_check.so",
            kernel_flags: check_flags,
            without: &|path| is_driver(path) || path.ends_with("unchecked.cpp"),
        },
        // Under the first name by which a driver is looked for.
        Build { name: "driver", file: "driver/libcuda.so", kernel_flags: Vec::new(), without: &is_check },
    ];
    let headers: Vec<String> =
        folders.iter().flat_map(|folder| files(folder, &["cuh", "h"])).map(|path| text(&path)).collect();
    let mut common = DefaultHasher::new();
    (&headers, &compiler.version).hash(&mut common);
    let common = common.finish();
    let includes = vec![format!("-I{}", kernels.display()), format!("-I{}", here.join("include").display())];

    let mut all = Vec::new();
    let mut linked = Vec::new();
    for build in &builds {
        let mut objects = Vec::new();
        let mut add = |source: PathBuf, extra: &[&str]| {
            let flags: Vec<String> = FLAGS.iter().chain(extra).map(|flag| flag.to_string()).collect();
            let mut hasher = DefaultHasher::new();
            (common, &flags, text(&source)).hash(&mut hasher);
            let stem = source.file_stem().expect("a name").to_string_lossy().into_owned();
            // The builds share the objects of the runtime.
            let path = cache.join(format!("{stem}-{:016x}.o", hasher.finish()));
            objects.push(path.clone());
            all.push(Object { source, flags: flags.into_iter().chain(includes.clone()).collect(), path });
        };
        for source in files(&kernels, &["cu"]).into_iter().chain(files(&here.join("kernels"), &["cu"])) {
            add(source, &build.kernel_flags);
        }
        for source in [here.join("runtime"), here.join("driver")].iter().flat_map(|folder| files(folder, &["cpp"])) {
            if !(build.without)(&source) {
                add(source, &[]);
            }
        }
        linked.push((build, objects));
    }
    let used: Vec<PathBuf> = linked.iter().flat_map(|(_, objects)| objects.iter().cloned()).collect();
    forget_old(&cache, &used);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all.dedup_by(|a, b| a.path == b.path);
    compile(&compiler, all.into_iter().filter(|object| !object.path.exists()).collect());
    for (build, objects) in linked {
        let path = out.join(build.file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the object's folder");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut command = Command::new(&compiler.program);
        command.args(["-shared", "-pthread", "-Wl,-Bsymbolic", &format!("-Wl,-soname,{name}"), "-o"]);
        command.arg(&path).args(&objects).arg("-ldl");
        run(command, &path);
        println!("cargo:rustc-env=SIMT_{}={}", build.name.to_uppercase(), path.display());
    }
}

/// Whether a source is the driver's.
fn is_driver(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("driver"))
}

/// Whether a source is the check build's alone.
fn is_check(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checks"))
}

struct Compiler {
    program: String,
    version: String,
}

impl Compiler {
    fn find() -> Option<Self> {
        let named = env::var("CXX").ok().filter(|name| !name.is_empty());
        let candidates = named.map_or(vec!["g++".into(), "clang++".into(), "c++".into()], |name| vec![name]);
        candidates.into_iter().find_map(|program| {
            let output = Command::new(&program).arg("--version").output().ok()?;
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            output.status.success().then_some(Self { program, version })
        })
    }

    /// Function entries are of no interest, and volatile accesses are the kernels' spinning.
    fn check_flags(&self) -> &'static [&'static str] {
        if self.version.contains("clang") {
            &["-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-distinguish-volatile=1"]
        } else {
            &["--param=tsan-instrument-func-entry-exit=0", "--param=tsan-distinguish-volatile=1"]
        }
    }
}

/// Files of a folder and the folders in it with one of these extensions, in order.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extensions));
        } else if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Removes objects that no build has made for a while: another one may just be linking those of today.
fn forget_old(cache: &Path, used: &[PathBuf]) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let old = |path: &Path| {
        let made = fs::metadata(path).and_then(|data| data.modified()).ok();
        made.and_then(|time| SystemTime::now().duration_since(time).ok()).is_some_and(|age| age > DAY)
    };
    for entry in fs::read_dir(cache).expect("a folder").flatten() {
        let path = entry.path();
        if !used.contains(&path) && old(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// As many compilers at a time as cargo allows.
fn compile(compiler: &Compiler, objects: Vec<Object>) {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    let queue = Mutex::new(objects);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(object) = queue.lock().expect("no job panicked").pop() else { break };
                    // Under its name only when it is whole.
                    let unfinished = object.path.with_extension(format!("{}.part", std::process::id()));
                    let mut command = Command::new(&compiler.program);
                    command
                        .args(&object.flags)
                        .args(["-x", "c++", "-c"])
                        .arg(&object.source)
                        .arg("-o")
                        .arg(&unfinished);
                    run(command, &object.source);
                    fs::rename(&unfinished, &object.path).expect("the finished object");
                }
            });
        }
    });
}

/// Warnings are passed on, errors end the build.
fn run(mut command: Command, what: &Path) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} does not compile:\n{said}", what.display());
    for line in said.lines() {
        println!("cargo:warning={line}");
    }
}
