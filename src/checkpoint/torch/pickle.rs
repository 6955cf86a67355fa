//! The pickle machine, protocols 2 to 5: a stack, a memo, and no calls.
//!
//! Time and memory are linear in the program: every opcode reads at least one byte and adds at most a few
//! values, nothing recurses, and [`MAX_VALUES`] bounds the whole.

use std::collections::HashMap;

use super::stack::Stack;
use super::value::{Global, Node, Value, Values, shorten};
use super::{Fault, PLAIN, calls};

/// Most values that may be alive at once, on the stack, in the memo and in containers.
const MAX_VALUES: usize = 2 << 20;

/// Runs the program; the containers it built and the value it leaves on top.
pub(super) fn read(program: &[u8]) -> Result<(Values<'_>, Value<'_>), Fault> {
    let mut machine =
        Machine { program, at: 0, stack: Stack::default(), memo: HashMap::new(), values: Values::default() };
    match machine.run() {
        Ok(top) => Ok((machine.values, top)),
        Err(mut fault) => {
            fault.problem = format!("`data.pkl`, byte {}: {}", machine.at, fault.problem);
            Err(fault)
        }
    }
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Stack<'a>,
    memo: HashMap<u32, Value<'a>>,
    values: Values<'a>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, Fault> {
        loop {
            let opcode = self.u8()?;
            if opcode == b'.' {
                return self.stack.pop();
            }
            self.step(opcode)?;
            if self.stack.size() + self.memo.len() + self.values.size() > MAX_VALUES {
                return Err(Fault::with_hint(format!("more than {MAX_VALUES} values"), PLAIN));
            }
        }
    }

    /// One opcode, named as in Python's `pickletools`.
    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            0x80 => self.proto()?,
            // FRAME: a hint for buffered readers.
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.stack.mark(),
            b'0' => self.stack.pop_or_mark()?,
            b'1' => {
                self.stack.pop_to_mark()?;
            }
            b'2' => {
                let top = self.stack.top()?;
                self.stack.push(top);
            }

            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => {
                let value = self.u8()?;
                self.stack.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => {
                let length = self.u8()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?);
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.stack.push(Value::Float(value));
            }

            b'X' | 0x8c | 0x8d | b'T' | b'U' => self.text(opcode)?,
            b'B' | b'C' | 0x8e | 0x96 => self.blob(opcode)?,

            b')' => self.push_node(Node::Tuple(Vec::new())),
            b']' => self.push_node(Node::List(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            0x8f => self.push_opaque("builtins", "set"),
            b't' => {
                let items = self.stack.pop_to_mark()?;
                self.push_node(Node::Tuple(items));
            }
            0x85..=0x87 => {
                let items = self.stack.pop_some(usize::from(opcode - 0x84))?;
                self.push_node(Node::Tuple(items));
            }
            b'l' => {
                let items = self.stack.pop_to_mark()?;
                self.push_node(Node::List(items));
            }
            b'd' => {
                let items = self.stack.pop_to_mark()?;
                self.push_node(Node::Dict(Vec::new()));
                self.set_items(items)?;
            }
            0x91 => {
                self.stack.pop_to_mark()?;
                self.push_opaque("builtins", "frozenset");
            }
            b'a' => {
                let items = self.stack.pop_some(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.stack.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.stack.pop_some(2)?;
                self.set_items(items)?;
            }
            b'u' => {
                let items = self.stack.pop_to_mark()?;
                self.set_items(items)?;
            }
            // ADDITEMS: sets stay opaque.
            0x90 => {
                self.stack.pop_to_mark()?;
                self.stack.top()?;
            }

            b'q' => {
                let index = self.u8()?;
                self.put(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.put(index)?;
            }
            0x94 => self.put(self.memo.len() as u32)?,
            b'h' => {
                let index = self.u8()?;
                self.get(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.get(index)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_node(Node::Global(Global { module, name }));
            }
            0x93 => match self.stack.pop_some(2)?[..] {
                [Value::Str(module), Value::Str(name)] => self.push_node(Node::Global(Global { module, name })),
                _ => return Err(Fault::new("expected a global's two names, found other values")),
            },
            // REDUCE and NEWOBJ: a callable or class, and its arguments.
            b'R' | 0x81 => {
                let arguments = self.stack.pop()?;
                self.call(arguments)?;
            }
            // NEWOBJ_EX: keyword arguments on top, of no use to us.
            0x92 => {
                self.stack.pop()?;
                let arguments = self.stack.pop()?;
                self.call(arguments)?;
            }
            // BUILD: attributes of an object. Those of an OrderedDict or a parameter carry no weights.
            b'b' => {
                self.stack.pop()?;
                self.stack.top()?;
            }
            b'Q' => {
                let id = self.stack.pop()?;
                let storage = calls::persistent(&self.values, id)?;
                self.push_node(storage);
            }
            _ => {
                return Err(Fault::with_hint(
                    format!("expected an opcode of pickle protocols 2 to 5, found {opcode:#04x}"),
                    PLAIN,
                ));
            }
        }
        Ok(())
    }

    fn proto(&mut self) -> Result<(), Fault> {
        match self.u8()? {
            2..=5 => Ok(()),
            found => Err(Fault::with_hint(format!("expected pickle protocol 2 to 5, found {found}"), PLAIN)),
        }
    }

    /// A little-endian integer of `length` bytes.
    fn long(&mut self, length: u32) -> Result<(), Fault> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            self.push_opaque("builtins", "int");
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|&high| high & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    /// BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and Python 2's BINSTRING and SHORT_BINSTRING.
    fn text(&mut self, opcode: u8) -> Result<(), Fault> {
        let length = match opcode {
            0x8c | b'U' => self.u8()?.into(),
            0x8d => u64::from_le_bytes(self.array()?),
            _ => u32::from_le_bytes(self.array()?).into(),
        };
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => self.stack.push(Value::Str(text)),
            // Python allows lone surrogates in text and anything in Python 2's strings.
            Err(_) => self.push_opaque("builtins", "str"),
        }
        Ok(())
    }

    /// BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8.
    fn blob(&mut self, opcode: u8) -> Result<(), Fault> {
        let length = match opcode {
            b'C' => self.u8()?.into(),
            b'B' => u32::from_le_bytes(self.array()?).into(),
            _ => u64::from_le_bytes(self.array()?),
        };
        self.take(length)?;
        self.push_opaque("builtins", "bytes");
        Ok(())
    }

    /// Replaces the callable on top by what it stands for.
    fn call(&mut self, arguments: Value<'a>) -> Result<(), Fault> {
        let callable = self.stack.pop()?;
        let result = calls::result(&mut self.values, callable, arguments)?;
        self.stack.push(result);
        Ok(())
    }

    fn append(&mut self, new: Vec<Value<'a>>) -> Result<(), Fault> {
        let top = self.stack.top()?;
        match self.values.node_mut(top) {
            Some(Node::List(items)) => items.extend(new),
            // A subclass of list.
            Some(Node::Opaque(_)) => {}
            _ => return Err(Fault::new(format!("expected a list, found {}", self.values.describe(top)))),
        }
        Ok(())
    }

    fn set_items(&mut self, new: Vec<Value<'a>>) -> Result<(), Fault> {
        let (pairs, []) = new.as_chunks::<2>() else {
            return Err(Fault::new("expected keys and values in turn, found a key without a value"));
        };
        let top = self.stack.top()?;
        match self.values.node_mut(top) {
            Some(Node::Dict(entries)) => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            // A subclass of dict.
            Some(Node::Opaque(_)) => {}
            _ => return Err(Fault::new(format!("expected a dict, found {}", self.values.describe(top)))),
        }
        Ok(())
    }

    fn put(&mut self, index: u32) -> Result<(), Fault> {
        let top = self.stack.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn get(&mut self, index: u32) -> Result<(), Fault> {
        let value =
            self.memo.get(&index).ok_or_else(|| Fault::new(format!("expected memo entry {index}, found none")))?;
        self.stack.push(*value);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'a>) {
        let value = self.values.add(node);
        self.stack.push(value);
    }

    fn push_opaque(&mut self, module: &'a str, name: &'a str) {
        let value = self.values.opaque(module, name);
        self.stack.push(value);
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N).map(|bytes| bytes.try_into().expect("N bytes were taken"))
    }

    fn take(&mut self, length: impl TryInto<usize>) -> Result<&'a [u8], Fault> {
        let rest = &self.program[self.at..];
        let taken = length.try_into().ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| Fault::new("the pickle ends in the middle of an opcode"))?;
        self.at += taken.len();
        Ok(taken)
    }

    /// Text up to a line's end.
    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = &self.program[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| Fault::new("expected a name and a line's end, found the pickle's end"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| {
            Fault::new(format!("expected a name, found `{}`", shorten(&String::from_utf8_lossy(&rest[..end]))))
        })
    }
}
