//! The pickle machine's stack: values, and marks that no pop may pass.

use super::Fault;
use super::value::Value;

#[derive(Debug, Default)]
pub(super) struct Stack<'a> {
    values: Vec<Value<'a>>,
    /// Heights at each open mark.
    marks: Vec<usize>,
}

impl<'a> Stack<'a> {
    /// Values and marks.
    pub(super) fn size(&self) -> usize {
        self.values.len() + self.marks.len()
    }

    pub(super) fn push(&mut self, value: Value<'a>) {
        self.values.push(value);
    }

    pub(super) fn mark(&mut self) {
        self.marks.push(self.values.len());
    }

    /// Values above the last open mark.
    fn above(&self) -> usize {
        self.values.len() - self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<Value<'a>, Fault> {
        match self.values.last() {
            Some(&top) if self.above() > 0 => Ok(top),
            _ => Err(Fault::new("expected a value on the stack, found none")),
        }
    }

    pub(super) fn pop(&mut self) -> Result<Value<'a>, Fault> {
        let top = self.top()?;
        self.values.pop();
        Ok(top)
    }

    /// Drops the top, whichever of the two it is.
    pub(super) fn pop_or_mark(&mut self) -> Result<(), Fault> {
        if !self.marks.is_empty() && self.above() == 0 {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(|_| ())
    }

    /// The top `count` values, the deepest first.
    pub(super) fn pop_some(&mut self, count: usize) -> Result<Vec<Value<'a>>, Fault> {
        if self.above() < count {
            return Err(Fault::new(format!("expected {count} values on the stack, found fewer")));
        }
        Ok(self.values.split_off(self.values.len() - count))
    }

    /// Closes the last mark; the values above it, the deepest first.
    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, Fault> {
        let mark = self.marks.pop().ok_or_else(|| Fault::new("expected a mark on the stack, found none"))?;
        Ok(self.values.split_off(mark))
    }
}
