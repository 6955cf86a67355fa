//! What `ptxas -v` says of registers and spills, as a table.

use std::collections::BTreeSet;

/// One kernel on one target; all but registers in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub kernel: String,
    pub target: String,
    pub registers: u32,
    /// Static shared memory.
    pub shared: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
}

/// Every kernel that the messages tell of, in order of name and target, each once.
pub fn parse(messages: &str) -> BTreeSet<Use> {
    let mut all = BTreeSet::new();
    let mut current = Use::default();
    // What follows is about the kernel itself, not about a function that it calls.
    let mut own = false;
    for line in messages.lines() {
        if let Some((kernel, rest)) =
            line.split_once("Compiling entry function '").and_then(|(_, x)| x.split_once('\''))
        {
            let target = rest.split('\'').nth(1).unwrap_or_default();
            current = Use { kernel: kernel.into(), target: target.into(), ..Use::default() };
        } else if let Some((_, function)) = line.split_once("Function properties for ") {
            own = function.trim() == current.kernel;
        } else if line.contains("bytes spill stores") && own {
            current.spill_stores = before(line, " bytes spill stores");
            current.spill_loads = before(line, " bytes spill loads");
        } else if line.contains(" registers") && line.contains("Used ") {
            current.registers = before(line, " registers");
            current.shared = before(line, " bytes smem");
            all.insert(std::mem::take(&mut current));
        }
    }
    all
}

/// The number before some words; 0 where they are not.
fn before(line: &str, words: &str) -> u32 {
    let text = line.split_once(words).map_or("", |(text, _)| text);
    text.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A line per kernel and target under a line of headings; columns parted by blanks. `modules` are the kernels'
/// files with their messages.
pub fn table(modules: &[(String, String)]) -> String {
    let headings = ["file", "kernel", "target", "registers", "shared", "spill_stores", "spill_loads"].map(String::from);
    let mut rows = vec![headings];
    for (module, messages) in modules {
        for Use { kernel, target, registers, shared, spill_stores, spill_loads } in parse(messages) {
            let numbers = [registers, shared, spill_stores, spill_loads].map(|number| number.to_string());
            let [registers, shared, stores, loads] = numbers;
            rows.push([module.clone(), kernel, target, registers, shared, stores, loads]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
