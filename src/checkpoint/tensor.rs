//! One tensor of an open checkpoint: a name, a type, a shape, and bytes that stay where they are.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::Mmap;

/// Element types that checkpoints hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum DType {
    F32,
    F16,
    #[value(name = "bf16")]
    BF16,
    /// Counters and other leftovers of training; never a weight, so never an option's value.
    #[value(skip)]
    I64,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I64 => 8,
        }
    }

    /// The name that users see: `f32`, `f16`, `bf16`, `i64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
        }
    }
}

/// Where a tensor's bytes live. Cloning never copies them.
#[derive(Clone)]
pub enum Bytes {
    /// A mapped file.
    Mapped(Arc<Mmap>),
    /// Memory of our own: converted, made up, or built by a test.
    Owned(Arc<Vec<u8>>),
    /// Built into the program.
    Static(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

/// One tensor: little-endian elements inside a [`Bytes`], perhaps strided.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    strides: Vec<usize>,
    bytes: Bytes,
    /// Byte offset of the element at index 0.
    start: usize,
}

impl Tensor {
    /// A tensor whose elements follow one another from byte `start` on, last dimension fastest.
    ///
    /// `None` when `bytes` is too short or the shape overflows.
    pub fn contiguous(dtype: DType, shape: Vec<usize>, bytes: Bytes, start: usize) -> Option<Self> {
        let mut strides = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].checked_mul(shape[axis].max(1))?;
        }
        Self::strided(dtype, shape, strides, bytes, start)
    }

    /// A tensor of any layout; `strides` in elements. `None` when an element would lie outside `bytes`.
    pub fn strided(dtype: DType, shape: Vec<usize>, strides: Vec<usize>, bytes: Bytes, start: usize) -> Option<Self> {
        if shape.len() != strides.len() {
            return None;
        }
        shape.iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent))?;
        if !shape.contains(&0) {
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(0usize, |at, (&extent, &stride)| at.checked_add((extent - 1).checked_mul(stride)?))?;
            let end = last.checked_add(1)?.checked_mul(dtype.size())?.checked_add(start)?;
            if end > bytes.len() {
                return None;
            }
        }
        Some(Self { dtype, shape, strides, bytes, start })
    }

    /// A contiguous f32 tensor of our own memory. Panics when `values` does not fill `shape`.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values do not fill the shape");
        let bytes = Bytes::Owned(Arc::new(bytemuck::cast_slice(values).to_vec()));
        Self::contiguous(DType::F32, shape, bytes, 0).expect("the length was checked")
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the elements follow one another, last dimension fastest.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if extent != 1 && stride != expected {
                return false;
            }
            expected *= extent;
        }
        true
    }

    /// The elements' bytes, in place; `None` when they do not follow one another.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.byte_range().map(|range| &self.bytes[range])
    }

    /// Where [`Tensor::bytes`] lies, for an owner that keeps the mapping alive; `None` when strided.
    pub fn storage(&self) -> Option<(Bytes, Range<usize>)> {
        self.byte_range().map(|range| (self.bytes.clone(), range))
    }

    /// Gives the memory of a mapped tensor back to the system; its bytes come again from the file when they
    /// are read. For weights that now live in another form, so that they are not in memory twice.
    pub fn release(&self) {
        #[cfg(unix)]
        if let (Bytes::Mapped(map), Some(range)) = (&self.bytes, self.byte_range()) {
            // SAFETY: the map is of a file and is only read, so dropped pages come back as they were.
            let advised =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
            // Only advice: where the system declines, the pages stay until it wants them back.
            advised.ok();
        }
    }

    fn byte_range(&self) -> Option<Range<usize>> {
        if self.is_empty() {
            return Some(0..0);
        }
        self.is_contiguous().then(|| self.start..self.start + self.len() * self.dtype.size())
    }

    /// All elements as f32, in index order.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self.map(f32::from_le_bytes),
            DType::F16 => self.map(|b| f16::from_le_bytes(b).to_f32()),
            DType::BF16 => self.map(|b| bf16::from_le_bytes(b).to_f32()),
            DType::I64 => self.map(|b| i64::from_le_bytes(b) as f32),
        }
    }

    /// All elements as bf16, rounded to nearest even, in index order.
    pub fn to_bf16(&self) -> Vec<bf16> {
        match self.dtype {
            DType::F32 => self.map(|b| bf16::from_f32(f32::from_le_bytes(b))),
            DType::F16 => self.map(|b| bf16::from_f32(f16::from_le_bytes(b).to_f32())),
            DType::BF16 => self.map(bf16::from_le_bytes),
            DType::I64 => self.map(|b| bf16::from_f32(i64::from_le_bytes(b) as f32)),
        }
    }

    /// Applies `convert` to the N bytes of every element, in index order.
    fn map<T, const N: usize>(&self, convert: impl Fn([u8; N]) -> T) -> Vec<T> {
        debug_assert_eq!(N, self.dtype.size());
        let element = |bytes: &[u8]| convert(bytes.try_into().expect("an element has N bytes"));
        if let Some(bytes) = self.bytes() {
            return bytes.chunks_exact(N).map(element).collect();
        }
        let mut out = Vec::with_capacity(self.len());
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..self.len() {
            let at: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum();
            let start = self.start + at * N;
            out.push(element(&self.bytes[start..start + N]));
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        out
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype.name(), self.shape)
    }
}
