//! The parts of the build script that can be wrong without anyone seeing it.

#[path = "../build/ptxas.rs"]
mod ptxas;

use ptxas::{Use, parse, table};

/// As nvcc 13.0 writes it: two targets, a called function, shared memory, spills.
const MESSAGES: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'scale' for 'sm_90a'
ptxas info    : Function properties for scale
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Function properties for helper
    0 bytes stack frame, 400 bytes spill stores, 400 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 4096 bytes smem, 16 bytes cumulative stack size
ptxas info    : Compile time = 3.511 ms
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'scale' for 'sm_80'
ptxas info    : Function properties for scale
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 18 registers, used 0 barriers, 388 bytes cmem[0]
";

#[test]
fn kernels_are_read_with_registers_and_spills() {
    let found: Vec<Use> = parse(MESSAGES).into_iter().collect();
    let scale = |target: &str| Use { kernel: "scale".into(), target: target.into(), ..Use::default() };
    assert_eq!(
        found,
        [
            Use { registers: 18, ..scale("sm_80") },
            Use { registers: 255, shared: 4096, spill_stores: 12, spill_loads: 8, ..scale("sm_90a") }
        ]
    );
}

#[test]
fn the_table_has_a_line_each_and_depends_on_no_order() {
    let lines: Vec<&str> = MESSAGES.lines().collect();
    let turned = [&lines[8..], &lines[..8]].concat().join("\n");
    let table = |messages: &str| table(&[("norms".into(), messages.into())]);
    assert_eq!(table(MESSAGES), table(&turned));
    assert_eq!(table(MESSAGES), TABLE);
}

const TABLE: &str = "\
file   kernel  target  registers  shared  spill_stores  spill_loads
norms  scale   sm_80   18         0       0             0
norms  scale   sm_90a  255        4096    12            8
";
