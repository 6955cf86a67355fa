//! Compiles `kernels/*.cu` and writes `kernels.rs`: a constant per kernel, and the machine code.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use super::ptxas;

/// Cards that the program carries machine code for; the last one's PTX serves later ones.
const ARCHS: &str = "80,86,89,90a,100";

/// One `kernels/*.cu`.
struct Source {
    /// Its stem, the module's name.
    module: String,
    path: PathBuf,
    text: String,
    /// The names that it exports.
    kernels: Vec<String>,
}

/// The compiler and what it is told.
struct Compiler {
    nvcc: PathBuf,
    /// Major and minor.
    version: (u32, u32),
    /// `80`, `90a` …
    targets: Vec<String>,
    flags: Vec<String>,
    /// Decides the result with the sources: version and flags.
    identity: String,
}

/// What a source became.
struct Compiled {
    fatbin: PathBuf,
    /// What ptxas said of it.
    messages: String,
}

pub fn build() {
    println!("cargo:rerun-if-changed=kernels");
    for variable in ["SMALTI_CUDA", "SMALTI_CUDA_ARCHS", "NVCC", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let sources = sources(Path::new("kernels"));
    let compiler = compiler().unwrap_or_else(|problem| {
        assert!(env::var("SMALTI_CUDA").as_deref() != Ok("require"), "SMALTI_CUDA=require: {problem}");
        println!("cargo:warning=built without CUDA kernels, for the CPU alone: {problem}");
        None
    });
    if let Some(compiler) = &compiler {
        let cache = cache_folder(&out);
        let compiled = compile_all(&sources, compiler, &cache).unwrap_or_else(|problem| panic!("{problem}"));
        // Whoever empties the cache need not build anew: the program includes what lies beside it.
        for (source, compiled) in sources.iter().zip(&compiled) {
            fs::copy(&compiled.fatbin, out.join(fatbin_name(source))).expect("OUT_DIR can be written");
        }
        let messages: Vec<(String, String)> =
            sources.iter().zip(compiled).map(|(source, compiled)| (source.module.clone(), compiled.messages)).collect();
        write_whole(&cache.join("ptxas.txt"), ptxas::table(&messages).as_bytes());
    }
    fs::write(out.join("kernels.rs"), generated(&sources, compiler.as_ref())).expect("OUT_DIR can be written");
}

fn sources(folder: &Path) -> Vec<Source> {
    paths(folder, "cu").into_iter().map(source).collect()
}

/// A folder's files of an extension, in order.
fn paths(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder `kernels` is part of the source");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

fn source(path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).expect("a kernel file is text");
    let exported = |line: &str| Some(line.trim().strip_prefix("KERNEL_EXPORT(")?.strip_suffix(')')?.to_string());
    let kernels = text.lines().filter_map(exported).collect();
    let module = path.file_stem().expect("a file has a stem").to_string_lossy().into_owned();
    Source { module, path, text, kernels }
}

fn fatbin_name(source: &Source) -> String {
    format!("{}.fatbin", source.module)
}

/// The compiler; `None` when no kernels are wanted; an error when none is found.
fn compiler() -> Result<Option<Compiler>, String> {
    let wanted = env::var("SMALTI_CUDA").unwrap_or_default();
    assert!(["", "require", "off"].contains(&wanted.as_str()), "SMALTI_CUDA={wanted}: expected `require` or `off`");
    // Clippy only looks at the Rust code; cargo keeps its results apart from other builds'.
    let linting = env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy"));
    if linting || wanted == "off" {
        return Ok(None);
    }
    let (nvcc, told) = find_nvcc()?;
    let version = version(&told).ok_or_else(|| format!("{} tells no version: {told}", nvcc.display()))?;
    let targets = targets(&env::var("SMALTI_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.into()))?;
    let mut flags: Vec<String> =
        ["-std=c++17", "-O3", "-lineinfo", "-Xptxas=-v", "-Werror=all-warnings", "-fatbin"].map(String::from).into();
    flags.extend(targets.iter().map(|target| format!("-gencode=arch=compute_{target},code=sm_{target}")));
    flags.extend(targets.last().map(|target| format!("-gencode=arch=compute_{target},code=compute_{target}")));
    let identity = format!("{told}{}", flags.join(" "));
    Ok(Some(Compiler { nvcc, version, targets, flags, identity }))
}

/// The first nvcc that runs, and what it says of its version.
fn find_nvcc() -> Result<(PathBuf, String), String> {
    let in_home = |home| PathBuf::from(home).join("bin/nvcc");
    let candidates = match env::var_os("NVCC") {
        Some(nvcc) => vec![PathBuf::from(nvcc)],
        None => {
            let home = env::var_os("CUDA_HOME").filter(|home| !home.is_empty()).map(in_home);
            home.into_iter().chain([PathBuf::from("nvcc"), in_home("/usr/local/cuda".into())]).collect()
        }
    };
    let mut problems = Vec::new();
    for nvcc in candidates {
        match Command::new(&nvcc).arg("--version").output() {
            Ok(told) if told.status.success() => return Ok((nvcc, String::from_utf8_lossy(&told.stdout).into_owned())),
            Ok(told) => problems.push(format!("{} --version failed ({})", nvcc.display(), told.status)),
            Err(error) => problems.push(format!("{} does not run ({error})", nvcc.display())),
        }
    }
    Err(problems.join(", "))
}

/// 13.0 of `Cuda compilation tools, release 13.0, V13.0.88`.
fn version(told: &str) -> Option<(u32, u32)> {
    let (major, rest) = told.split_once("release ")?.1.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The targets of a list such as `80,90a`, or those of this machine's cards for `native`.
fn targets(archs: &str) -> Result<Vec<String>, String> {
    if archs.trim() == "native" {
        return native();
    }
    let targets: Vec<String> =
        archs.split(',').map(str::trim).filter(|arch| !arch.is_empty()).map(String::from).collect();
    let known = |target: &String| {
        let number = target.strip_suffix(['a', 'f']).unwrap_or(target);
        (2..=3).contains(&number.len()) && number.parse().is_ok_and(|number: u32| number >= 80)
    };
    match targets.iter().find(|target| !known(target)) {
        Some(wrong) => panic!("SMALTI_CUDA_ARCHS={archs}: expected targets from 80 on, such as `90a`, found `{wrong}`"),
        None if targets.is_empty() => panic!("SMALTI_CUDA_ARCHS is empty: expected targets such as {ARCHS}, or native"),
        None => Ok(targets),
    }
}

/// The targets of this machine's cards, each once.
fn native() -> Result<Vec<String>, String> {
    let asked = Command::new("nvidia-smi").args(["--query-gpu=compute_cap", "--format=csv,noheader"]).output();
    let told = match asked {
        Ok(told) if told.status.success() => String::from_utf8_lossy(&told.stdout).into_owned(),
        Ok(told) => return Err(format!("SMALTI_CUDA_ARCHS=native: nvidia-smi failed ({})", told.status)),
        Err(error) => return Err(format!("SMALTI_CUDA_ARCHS=native: nvidia-smi does not run ({error})")),
    };
    // As in `ARCHS`: Hopper's own target, which has what later cards lack.
    let target = |capability: &str| match capability.trim().replace('.', "").as_str() {
        "90" => "90a".to_string(),
        number => number.to_string(),
    };
    let mut targets: Vec<String> = told.lines().map(target).collect();
    targets.sort_by_key(|target| (target.len(), target.clone()));
    targets.dedup();
    match targets.is_empty() {
        true => Err("SMALTI_CUDA_ARCHS=native: nvidia-smi lists no card".into()),
        false => Ok(targets),
    }
}

/// A folder beside the profiles' own, so that debug and release share what is compiled.
fn cache_folder(out: &Path) -> PathBuf {
    // target/release/build/smalti-0123/out
    let folder = out.ancestors().nth(4).expect("OUT_DIR is deep in the target folder").join("kernels");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// All sources from the cache or compiled, as many at a time as cargo has jobs; an error tells of the first
/// that nvcc refuses.
fn compile_all(sources: &[Source], compiler: &Compiler, cache: &Path) -> Result<Vec<Compiled>, String> {
    let headers = paths(Path::new("kernels"), "cuh");
    let headers: String = headers.iter().map(|path| fs::read_to_string(path).expect("a header is text")).collect();
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    let next = Mutex::new(sources.iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(sources.len()));
    thread::scope(|scope| {
        for _ in 0..jobs.min(sources.len()) {
            scope.spawn(|| {
                loop {
                    let Some((i, source)) = next.lock().expect("nothing panics with it").next() else { break };
                    let compiled = compile(source, compiler, &headers, cache);
                    done.lock().expect("nothing panics with it").push((i, compiled));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nothing panics with it");
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, compiled)| compiled).collect()
}

fn compile(source: &Source, compiler: &Compiler, headers: &str, cache: &Path) -> Result<Compiled, String> {
    let mut hasher = DefaultHasher::new();
    (&compiler.identity, headers, &source.text).hash(&mut hasher);
    let fatbin = cache.join(format!("{}-{:016x}.fatbin", source.module, hasher.finish()));
    let told = fatbin.with_extension("ptxas");
    if fatbin.exists()
        && let Ok(messages) = fs::read_to_string(&told)
    {
        return Ok(Compiled { fatbin, messages });
    }
    let unfinished = unfinished(&fatbin);
    let mut command = Command::new(&compiler.nvcc);
    command.args(&compiler.flags).arg("-o").arg(&unfinished).arg(&source.path);
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let _ = fs::remove_file(&unfinished);
        return Err(format!("{command:?}\n{}{messages}", String::from_utf8_lossy(&output.stdout)));
    }
    write_whole(&told, messages.as_bytes());
    fs::rename(&unfinished, &fatbin).expect("the cache can be written");
    Ok(Compiled { fatbin, messages })
}

/// A name beside a file's own, for this process alone: another build may be writing the same file.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

/// Writes a file of the cache under another name first, so that nobody reads half of it.
fn write_whole(path: &Path, bytes: &[u8]) {
    let unfinished = unfinished(path);
    fs::write(&unfinished, bytes).expect("the cache can be written");
    fs::rename(&unfinished, path).expect("the cache can be written");
}

/// The Rust side: a constant per kernel, all of them, and the modules.
fn generated(sources: &[Source], compiler: Option<&Compiler>) -> String {
    let mut text = String::new();
    let mut all = Vec::new();
    for Source { module, kernels, .. } in sources {
        for kernel in kernels {
            let constant = kernel.to_uppercase();
            let _ = writeln!(text, "/// `{kernel}` of `kernels/{module}.cu`.");
            let _ = writeln!(text, "pub const {constant}: Kernel = Kernel {{ name: {kernel:?}, module: {module:?} }};");
            all.push(constant);
        }
    }
    let targets = compiler.map_or(Vec::new(), |compiler| compiler.targets.clone());
    let _ = writeln!(text, "/// Every kernel.\npub const ALL: &[Kernel] = &[{}];", all.join(", "));
    let _ = writeln!(text, "/// Major and minor version of the nvcc that compiled them.");
    let _ =
        writeln!(text, "pub const TOOLKIT: (u32, u32) = {:?};", compiler.map_or((0, 0), |compiler| compiler.version));
    let _ = writeln!(text, "/// What the machine code is for: `80`, `90a` …");
    let _ = writeln!(text, "pub const TARGETS: &[&str] = &{targets:?};");
    let _ = writeln!(text, "/// The target whose PTX is there too.");
    let _ = writeln!(text, "pub const PTX: &str = {:?};", targets.last().map_or("", String::as_str));
    let _ = writeln!(text, "/// Machine code by module; empty in a program that was built without nvcc.");
    let _ = writeln!(text, "pub const MODULES: &[(&str, &[u8])] = &[");
    for source in sources.iter().filter(|_| compiler.is_some()) {
        let file = format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{}\"))", fatbin_name(source));
        let _ = writeln!(text, "    ({:?}, &Aligned(*{file}).0),", source.module);
    }
    text + "];\n"
}
