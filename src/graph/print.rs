//! Graphs for people: ops with what each moves and computes, buffers with sizes and roles.
//!
//! Layers that are alike are printed once.

use std::fmt;

use crate::units::{bytes, flops};

use super::{BufferId, Cost, Graph, Load, Node, Per, PhaseId, Role};

/// Rows of cells in columns that are as wide as they need to be.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Columns from the left that begin at their left edge; the others end at their right edge.
    pub left: usize,
    pub rows: Vec<Vec<String>>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column < self.left {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The ops of a phase under a load; layers that are alike once.
pub fn ops(graph: &Graph, phase: PhaseId, load: &Load) -> Table {
    let name = graph.phases()[phase.0 as usize].name.as_str();
    let header = [name, "op", "weights", "cache", "activations", "compute"];
    let mut rows = vec![header.map(String::from).to_vec()];
    let cells = |op: &str, cost: Cost| {
        let or_dash = |count: u64, print: fn(u64) -> String| if count == 0 { "-".into() } else { print(count) };
        let sizes = [cost.weight_bytes, cost.cache_bytes, cost.activation_bytes].map(|size| or_dash(size, bytes));
        [vec![op.to_string()], sizes.to_vec(), vec![or_dash(cost.flops, flops)]].concat()
    };
    rows.extend(by_layer(graph.nodes(phase), |node| vec![cells(node.op.name(), node.op.cost(graph, load))]));
    rows.push([vec!["in all".to_string()], cells("", graph.cost(phase, load))].concat());
    Table { left: 2, rows }
}

/// Nodes with what `lines` says of each, in a line or more behind its name; layers that are alike once.
pub fn by_layer(nodes: &[Node], lines: impl Fn(&Node) -> Vec<Vec<String>>) -> Vec<Vec<String>> {
    let all = |layer: &[Node]| layer.iter().map(&lines).collect::<Vec<_>>();
    let mut rows = Vec::new();
    let mut layers = layers(nodes).into_iter().peekable();
    while let Some(layer) = layers.next() {
        let each = all(layer);
        let alike = |other: &&[Node]| like(layer, other) && all(other) == each;
        let mut last = layer;
        let mut count = 1;
        while let Some(next) = layers.next_if(alike) {
            last = next;
            count += 1;
        }
        if count > 1 {
            rows.push(vec![format!("{} to {}, {count} times:", stem(layer), stem(last))]);
        }
        for (node, lines) in layer.iter().zip(each) {
            let mut name = if count > 1 { format!("  {}", numbered(&node.name).2) } else { node.name.clone() };
            rows.extend(lines.into_iter().map(|line| [vec![std::mem::take(&mut name)], line].concat()));
        }
    }
    rows
}

/// A graph's buffers at the largest extent.
pub fn buffers(graph: &Graph) -> Table {
    let header = ["buffer", "role", "type", "shape", "size"];
    let row = |id: BufferId| {
        let buffer = graph.at(id);
        let leading = match buffer.per {
            Per::Plan => None,
            Per::Row => Some(graph.max().rows),
            Per::Draw => Some(graph.max().draws),
        };
        let shape: Vec<usize> = leading.into_iter().chain(buffer.shape.iter().copied()).collect();
        let size = bytes(graph.bytes_of(id) as u64);
        vec![buffer.name.clone(), buffer.role.name().into(), buffer.elem.name().into(), format!("{shape:?}"), size]
    };
    let rows = [header.map(String::from).to_vec()].into_iter().chain(graph.buffer_ids().map(row));
    Table { left: 4, rows: rows.collect() }
}

/// What a plan takes in memory, in one line.
pub fn memory(graph: &Graph) -> String {
    let cache = graph.buffer_bytes(Role::State) as u64;
    let all = graph.bytes() as u64;
    let weights = graph.weight_bytes() as u64;
    let activations = all - weights - cache;
    let parts = [(weights, "weights"), (cache, "cache"), (activations, "activations")];
    let parts = parts.iter().filter(|(size, _)| *size > 0).map(|(size, what)| format!("{what} {}", bytes(*size)));
    format!("{} ({})", bytes(all), parts.collect::<Vec<_>>().join(", "))
}

/// A name before, at and behind its first number: `layers`, `3`, `attention.wo`.
fn numbered(name: &str) -> (&str, Option<&str>, &str) {
    let mut start = 0;
    for part in name.split('.') {
        if part.parse::<usize>().is_ok() {
            let before = name[..start].trim_end_matches('.');
            return (before, Some(part), name[start + part.len()..].trim_start_matches('.'));
        }
        start += part.len() + 1;
    }
    (name, None, "")
}

/// Ops that follow one another and carry the same first number; ops without a number alone.
fn layers(nodes: &[Node]) -> Vec<&[Node]> {
    let same = |a: &Node, b: &Node| {
        let (a, b) = (numbered(&a.name), numbered(&b.name));
        a.1.is_some() && (a.0, a.1) == (b.0, b.1)
    };
    nodes.chunk_by(same).collect()
}

/// Whether two layers differ in their number alone.
fn like(a: &[Node], b: &[Node]) -> bool {
    let same = |(a, b): (&Node, &Node)| {
        let (x, y) = (numbered(&a.name), numbered(&b.name));
        x.1.is_some() && y.1.is_some() && (x.0, x.2) == (y.0, y.2) && a.op.name() == b.op.name()
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// A layer's name with its number.
fn stem(layer: &[Node]) -> String {
    let (before, number, _) = numbered(&layer[0].name);
    format!("{before}.{}", number.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (999_499, "999 kB")];
        for (count, text) in cases.into_iter().chain([(999_500, "1.00 MB"), (123_456_789_012, "123 GB")]) {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(flops(2_500_000_000), "2.50 GFLOP");
    }

    #[test]
    fn names_are_cut_at_their_first_number() {
        assert_eq!(numbered("layers.12.attention.wo"), ("layers", Some("12"), "attention.wo"));
        assert_eq!(numbered("decoder.mid.0.norm1"), ("decoder.mid", Some("0"), "norm1"));
        assert_eq!(numbered("output"), ("output", None, ""));
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb", "1"], ["aaa", "b", "22"]];
        let table = Table { left: 2, rows: rows.map(|row| row.map(String::from).to_vec()).to_vec() };
        assert_eq!(table.to_string(), "  a    bb   1\n  aaa  b   22\n");
    }
}
