//! What a pickle builds. Containers live in one list and refer to each other by index: a cycle leaks
//! nothing, and no depth of nesting can exhaust the stack, neither while building nor when dropped.

/// A value: small ones in place, others by index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Node(NodeId),
}

/// Names a [`Node`] of its [`Values`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NodeId(u32);

/// A value that others can share.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A function or a class by name; nothing is ever looked up.
    Global(Global<'a>),
    Storage(Storage<'a>),
    Tensor(Box<View<'a>>),
    /// Whatever else the program would have made, by what it would have called.
    Opaque(Global<'a>),
}

/// A qualified Python name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Global<'a> {
    pub module: &'a str,
    pub name: &'a str,
}

impl std::fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// Memory that tensors are views of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    /// E.g. `torch.FloatStorage`.
    pub class: Global<'a>,
    /// The entry is `data/{key}`.
    pub key: &'a str,
    /// Elements of the class's type.
    pub len: usize,
}

/// A tensor as the pickle describes it; not checked against its storage yet.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub storage: Storage<'a>,
    /// The type where the call names it; else it is the storage's.
    pub dtype: Option<Global<'a>>,
    /// Elements before the first one.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// All containers of a pickle.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    nodes: Vec<Node<'a>>,
    /// Nodes and what they were made with. Counted because a call can copy a list, and a short program can
    /// ask for that often.
    size: usize,
}

impl<'a> Values<'a> {
    /// Adds a container. The machine bounds how many there are, far below 2^32.
    pub(super) fn add(&mut self, node: Node<'a>) -> Value<'a> {
        self.size += match &node {
            Node::Tuple(items) | Node::List(items) => 1 + items.len(),
            Node::Dict(entries) => 1 + 2 * entries.len(),
            Node::Tensor(view) => 1 + view.shape.len() + view.strides.len(),
            Node::Global(_) | Node::Storage(_) | Node::Opaque(_) => 1,
        };
        self.nodes.push(node);
        Value::Node(NodeId(self.nodes.len() as u32 - 1))
    }

    pub(super) fn opaque(&mut self, module: &'a str, name: &'a str) -> Value<'a> {
        self.add(Node::Opaque(Global { module, name }))
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The container behind a value; `None` for a value in place.
    pub(super) fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(NodeId(index)) => self.nodes.get(index as usize),
            _ => None,
        }
    }

    pub(super) fn node_mut(&mut self, value: Value<'a>) -> Option<&mut Node<'a>> {
        match value {
            Value::Node(NodeId(index)) => self.nodes.get_mut(index as usize),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub(super) fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn global(&self, value: Value<'a>) -> Option<Global<'a>> {
        match self.node(value)? {
            Node::Global(global) => Some(*global),
            _ => None,
        }
    }

    /// What a value is, for errors.
    pub(super) fn describe(&self, value: Value<'a>) -> String {
        match value {
            Value::None => "None".into(),
            Value::Bool(value) => format!("the truth value {value}"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Str(text) => format!("the text `{}`", shorten(text)),
            Value::Node(_) => match self.node(value) {
                Some(Node::Tuple(items)) => format!("a tuple of {}", items.len()),
                Some(Node::List(items)) => format!("a list of {}", items.len()),
                Some(Node::Dict(entries)) => format!("a dict of {}", entries.len()),
                Some(Node::Global(global)) => format!("the name `{}`", shorten(&global.to_string())),
                Some(Node::Storage(_)) => "a storage".into(),
                Some(Node::Tensor(_)) => "a tensor".into(),
                Some(Node::Opaque(global)) => {
                    format!("a value that only running `{}` could make", shorten(&global.to_string()))
                }
                None => "nothing".into(),
            },
        }
    }
}

/// A text from a file, short enough for an error message and unable to drive a terminal.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text.chars().take(MOST).map(printable).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}

pub(super) fn printable(c: char) -> char {
    if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
}
