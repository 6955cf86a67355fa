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

/// Cards that the program carries machine code for; the last one's PTX serves later ones.
const ARCHS: &str = "80,86,89,90a,100";

/// One `kernels/*.cu`.
struct Source {
    /// Its stem, the module's name.
    module: String,
    path: PathBuf,
    /// The names that it exports.
    kernels: Vec<String>,
}

/// The compiler and what it is told.
struct Compiler {
    nvcc: PathBuf,
    flags: Vec<String>,
    /// Decides the result with the sources: version and flags.
    identity: String,
}

pub fn build() {
    println!("cargo:rerun-if-changed=kernels");
    for variable in ["SMALTI_CUDA", "SMALTI_CUDA_ARCHS", "NVCC", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let sources = sources(Path::new("kernels"));
    let fatbins = match compiler() {
        Ok(Some(compiler)) => compile_all(&sources, &compiler, &cache_folder(&out)),
        Ok(None) => Vec::new(),
        Err(problem) => {
            assert!(env::var("SMALTI_CUDA").as_deref() != Ok("require"), "SMALTI_CUDA=require: {problem}");
            println!("cargo:warning=built without CUDA kernels, for the CPU alone: {problem}");
            Vec::new()
        }
    };
    fs::write(out.join("kernels.rs"), generated(&sources, &fatbins)).expect("OUT_DIR can be written");
}

fn sources(folder: &Path) -> Vec<Source> {
    let entries = fs::read_dir(folder).expect("the folder `kernels` is part of the source");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    paths.sort();
    paths.into_iter().map(source).collect()
}

fn source(path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).expect("a kernel file is text");
    let exported = |line: &str| Some(line.trim().strip_prefix("KERNEL_EXPORT(")?.strip_suffix(')')?.to_string());
    let kernels = text.lines().filter_map(exported).collect();
    let module = path.file_stem().expect("a file has a stem").to_string_lossy().into_owned();
    Source { module, path, kernels }
}

/// The compiler; `None` when no kernels are wanted; an error when none is found.
fn compiler() -> Result<Option<Compiler>, String> {
    // Clippy only looks at the Rust code.
    let linting = env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy"));
    if linting || env::var("SMALTI_CUDA").as_deref() == Ok("off") {
        return Ok(None);
    }
    let nvcc = match (env::var_os("NVCC"), env::var_os("CUDA_HOME")) {
        (Some(nvcc), _) => PathBuf::from(nvcc),
        (None, Some(home)) => PathBuf::from(home).join("bin/nvcc"),
        (None, None) => PathBuf::from("nvcc"),
    };
    let version = Command::new(&nvcc).arg("--version").output();
    let version = version.map_err(|error| format!("{} does not run: {error}", nvcc.display()))?;
    if !version.status.success() {
        return Err(format!("{} --version failed", nvcc.display()));
    }
    let mut flags: Vec<String> =
        ["-std=c++17", "-O3", "-lineinfo", "-Xptxas=-v", "-Werror=all-warnings", "-fatbin"].map(String::from).into();
    flags.extend(targets(&env::var("SMALTI_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.into())));
    let identity = format!("{}{}", String::from_utf8_lossy(&version.stdout), flags.join(" "));
    Ok(Some(Compiler { nvcc, flags, identity }))
}

/// nvcc's flags for a list such as `80,90a`: machine code for each, PTX of the last.
fn targets(archs: &str) -> Vec<String> {
    if archs == "native" {
        return vec!["-arch=native".into()];
    }
    let archs: Vec<&str> = archs.split(',').map(str::trim).filter(|arch| !arch.is_empty()).collect();
    let mut flags: Vec<String> =
        archs.iter().map(|arch| format!("-gencode=arch=compute_{arch},code=sm_{arch}")).collect();
    flags.extend(archs.last().map(|arch| format!("-gencode=arch=compute_{arch},code=compute_{arch}")));
    flags
}

/// A folder beside the profiles' own, so that debug, release and check share what is compiled.
fn cache_folder(out: &Path) -> PathBuf {
    // target/release/build/smalti-0123/out
    let folder = out.ancestors().nth(4).expect("OUT_DIR is deep in the target folder").join("kernels");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// One fatbin per source, from the cache or compiled, as many at a time as cargo has jobs.
fn compile_all(sources: &[Source], compiler: &Compiler, cache: &Path) -> Vec<PathBuf> {
    let headers: String = headers(Path::new("kernels"));
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    let next = Mutex::new(sources.iter().enumerate());
    let fatbins = Mutex::new(vec![PathBuf::new(); sources.len()]);
    thread::scope(|scope| {
        for _ in 0..jobs.min(sources.len()) {
            scope.spawn(|| {
                loop {
                    let Some((i, source)) = next.lock().expect("no job panics with it").next() else { break };
                    let fatbin = compile(source, compiler, &headers, cache);
                    fatbins.lock().expect("no job panics with it")[i] = fatbin;
                }
            });
        }
    });
    fatbins.into_inner().expect("no job panicked")
}

fn headers(folder: &Path) -> String {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("kernels").map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cuh"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("a header is text")).collect()
}

fn compile(source: &Source, compiler: &Compiler, headers: &str, cache: &Path) -> PathBuf {
    let text = fs::read_to_string(&source.path).expect("it was read before");
    let mut hasher = DefaultHasher::new();
    (&compiler.identity, headers, text).hash(&mut hasher);
    let fatbin = cache.join(format!("{}-{:016x}.fatbin", source.module, hasher.finish()));
    if fatbin.exists() {
        return fatbin;
    }
    let unfinished = fatbin.with_extension(format!("{}.tmp", std::process::id()));
    let mut command = Command::new(&compiler.nvcc);
    command.args(&compiler.flags).arg("-o").arg(&unfinished).arg(&source.path);
    let output = command.output().expect("nvcc ran before");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{}{messages}", String::from_utf8_lossy(&output.stdout));
    // What ptxas says of registers and spills, for whoever wants to know.
    fs::write(fatbin.with_extension("ptxas"), messages.as_bytes()).expect("the cache can be written");
    fs::rename(&unfinished, &fatbin).expect("the cache can be written");
    fatbin
}

/// The Rust side: a constant per kernel, all of them, and the modules.
fn generated(sources: &[Source], fatbins: &[PathBuf]) -> String {
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
    let _ = writeln!(text, "/// Every kernel.\npub const ALL: &[Kernel] = &[{}];", all.join(", "));
    let _ = writeln!(text, "/// Machine code by module; empty in a program that was built without nvcc.");
    let _ = writeln!(text, "pub const MODULES: &[(&str, &[u8])] = &[");
    for (source, fatbin) in sources.iter().zip(fatbins) {
        let _ = writeln!(text, "    ({:?}, include_bytes!({:?})),", source.module, fatbin.display().to_string());
    }
    text + "];\n"
}
