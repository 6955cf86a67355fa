//! Buffers and weights in main memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapRaw};

use super::simd::LINE;
use crate::backend::weights::{bf16_values, find, values};
use crate::checkpoint::{Bytes, Checkpoint, DType, Tensor};
use crate::graph::{Elem, Source, Weight};
use crate::{Error, Result};

/// Bytes of a large page.
const LARGE: usize = 2 << 20;

/// Bytes that weights are cut from at a time: most are smaller than some large pages.
const CHUNK: usize = 16 * LARGE;

/// Zeroed memory, at a page. Large pages are asked for where the system has them: a stream through many small
/// ones waits for the translation of addresses (31 GB/s instead of 36 on two cores of a Xeon, tiles 25 instead of 32).
pub fn pages(len_bytes: usize) -> Result<MmapMut> {
    // Whole large pages where hardly anything of the last one is lost; no pages at all cannot be had.
    let whole = if len_bytes < 4 * LARGE { len_bytes.max(1) } else { len_bytes.next_multiple_of(LARGE) };
    let pages = MmapMut::map_anon(whole).map_err(|error| Error::OutOfMemory {
        what: format!("a buffer of the CPU ({error})"),
        needed_bytes: whole as u64,
        free_bytes: available(),
        hint: "free memory, or use a smaller model, --batch-size or --image-size".into(),
    })?;
    #[cfg(target_os = "linux")]
    // A system without large pages says so, and nothing is lost but speed.
    let _ = pages.advise(memmap2::Advice::HugePage);
    Ok(pages)
}

/// Bytes that can be had: Linux's own estimate without swapping; elsewhere a cautious guess.
pub fn available() -> u64 {
    const GUESS: u64 = 4 << 30;
    let kilobytes = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kilobytes.map_or(GUESS, |kilobytes| kilobytes * 1024)
}

/// One zeroed buffer that the members of a team write in disjoint parts; at a cache line.
pub struct Buffer {
    pages: Arc<MmapRaw>,
    start: usize,
    len_bytes: usize,
}

impl Buffer {
    pub fn new(len_bytes: usize) -> Result<Self> {
        Ok(Self { pages: Arc::new(pages(len_bytes)?.into()), start: 0, len_bytes })
    }

    /// The first element. Reads and writes through it are the caller's to keep apart.
    pub fn ptr<T: Pod>(&self) -> *mut T {
        self.pages.as_mut_ptr().wrapping_add(self.start).cast()
    }

    /// How many whole elements of a type it holds.
    pub fn len<T>(&self) -> usize {
        self.len_bytes / size_of::<T>()
    }

    /// All of it, while nobody else has it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `&mut self` excludes every other user, and no other buffer has these bytes; any bytes are a valid u8.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.len_bytes) }
    }
}

/// Where the next weights come from: what is left of the last chunk, as long as one of its buffers is in use.
#[derive(Default)]
struct Chunks {
    last: Weak<MmapRaw>,
    used: usize,
}

impl Chunks {
    fn buffer(&mut self, len_bytes: usize) -> Result<Buffer> {
        if len_bytes > CHUNK / 4 {
            return Buffer::new(len_bytes);
        }
        let last = self.last.upgrade().filter(|_| self.used + len_bytes <= CHUNK);
        let pages = match last {
            Some(pages) => pages,
            None => {
                let pages = Arc::new(pages(CHUNK)?.into());
                // Not before: what is left of the last chunk stays what it is when the system has no memory.
                self.used = 0;
                pages
            }
        };
        let buffer = Buffer { start: self.used, len_bytes, pages };
        self.last = Arc::downgrade(&buffer.pages);
        self.used += len_bytes.next_multiple_of(LINE);
        Ok(buffer)
    }
}

/// One weight, in the checkpoint's own bytes where type, order and alignment allow.
pub struct WeightData {
    elem: Elem,
    place: Place,
    /// Number of elements.
    len: usize,
}

enum Place {
    /// The checkpoint's bytes, from this one on.
    Checkpoint(Bytes, usize),
    /// Memory of our own: copied, converted, arranged or computed.
    Own(Buffer),
}

impl WeightData {
    /// A weight of `len` elements in a buffer of as many that `fill` writes.
    fn filled(elem: Elem, len: usize, mut buffer: Buffer, fill: impl FnOnce(&mut [u8])) -> Self {
        debug_assert_eq!(len, buffer.len_bytes / elem.size());
        fill(buffer.bytes_mut());
        Self { elem, place: Place::Own(buffer), len }
    }

    pub fn elem(&self) -> Elem {
        self.elem
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All elements; panics as `ptr`.
    fn values<T: Pod>(&self) -> &[T] {
        // SAFETY: there are `len` of them, and nobody writes a weight that is loaded.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len) }
    }

    /// The first element; f32 or, for bf16, its bits. Panics when `T` is not the weight's type.
    pub fn ptr<T: Pod>(&self) -> *const T {
        assert_eq!(size_of::<T>(), self.elem.size(), "the weight's element type");
        match &self.place {
            Place::Checkpoint(bytes, start) => bytes[*start..].as_ptr().cast(),
            Place::Own(buffer) => buffer.ptr::<T>().cast_const(),
        }
    }
}

/// Weights that are loaded already, by everything that decides their bytes, and memory for more.
#[derive(Default)]
pub struct WeightCache {
    loaded: Mutex<HashMap<Key, Weak<WeightData>>>,
    chunks: Mutex<Chunks>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    checkpoint: u64,
    name: String,
    elem: Elem,
    normalized: bool,
    /// The [`Arrangement`]'s name; "" for as it is.
    arrangement: &'static str,
}

/// How an op reads a weight, if not as it lies in the checkpoint: another order of its values, or values computed from
/// them.
pub struct Arrangement {
    /// Tells the forms of one weight apart.
    name: &'static str,
    elem: Elem,
    len: usize,
    arrange: Arrange,
}

/// From values in the checkpoint's order to what the op reads, zero before.
enum Arrange {
    F32(Fill<f32>),
    /// bf16 as its bits.
    Bf16(Fill<u16>),
}

type Fill<T> = Box<dyn Fn(&[T], &mut [u8]) + Send + Sync>;

impl Arrangement {
    /// To f32.
    pub fn new(name: &'static str, len: usize, arrange: impl Fn(&[f32], &mut [f32]) + Send + Sync + 'static) -> Self {
        let arrange = move |values: &[f32], to: &mut [u8]| arrange(values, bytemuck::cast_slice_mut(to));
        Self { name, elem: Elem::F32, len, arrange: Arrange::F32(Box::new(arrange)) }
    }

    /// To bf16, as its bits.
    pub fn bf16(name: &'static str, len: usize, arrange: impl Fn(&[u16], &mut [u16]) + Send + Sync + 'static) -> Self {
        let arrange = move |values: &[u16], to: &mut [u8]| arrange(values, bytemuck::cast_slice_mut(to));
        Self { name, elem: Elem::Bf16, len, arrange: Arrange::Bf16(Box::new(arrange)) }
    }

    /// From bf16 to words.
    pub fn pairs(name: &'static str, len: usize, arrange: impl Fn(&[u16], &mut [u32]) + Send + Sync + 'static) -> Self {
        let arrange = move |values: &[u16], to: &mut [u8]| arrange(values, bytemuck::cast_slice_mut(to));
        Self { name, elem: Elem::U32, len, arrange: Arrange::Bf16(Box::new(arrange)) }
    }

    /// The same from f32, of another name, then through `then` to half as many words.
    pub fn halved(self, name: &'static str, then: fn(&[f32], &mut [u32])) -> Self {
        let Self { len, arrange: Arrange::F32(arrange), .. } = self else { panic!("{name} is of f32") };
        let arrange = move |values: &[f32], to: &mut [u8]| {
            let mut whole = vec![0f32; len];
            arrange(values, bytemuck::cast_slice_mut(&mut whole));
            then(&whole, bytemuck::cast_slice_mut(to));
        };
        Self { name, elem: Elem::U32, len: len / 2, arrange: Arrange::F32(Box::new(arrange)) }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl WeightCache {
    /// The weight, loaded or shared with the plans that have it.
    pub fn get(
        &self,
        checkpoint: &Checkpoint,
        weight: &Weight,
        arrangement: Option<&Arrangement>,
    ) -> Result<Arc<WeightData>> {
        if let Source::Constant(_) = weight.source {
            // Computed from what the plan is for, the picture's size say, and not from the checkpoint.
            return load(checkpoint, weight, Buffer::new).map(Arc::new);
        }
        let key = Key {
            checkpoint: checkpoint.id(),
            name: weight.name.clone(),
            elem: weight.elem,
            normalized: matches!(weight.source, Source::NormalizedTensor),
            arrangement: arrangement.map_or("", |arrangement| arrangement.name),
        };
        let buffer = |bytes| self.chunks.lock().unwrap_or_else(PoisonError::into_inner).buffer(bytes);
        let loaded = || self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = loaded().get(&key).and_then(Weak::upgrade) {
            return Ok(data);
        }
        let data = Arc::new(match arrangement {
            None => load(checkpoint, weight, buffer)?,
            Some(Arrangement { elem, len, arrange, .. }) => match arrange {
                // Straight from the file where it is of the wanted type; `values` would hold all of it once more.
                Arrange::F32(arrange) if weight.elem == Elem::F32 => {
                    let data = load(checkpoint, weight, Buffer::new)?;
                    WeightData::filled(*elem, *len, buffer(len * elem.size())?, |to| arrange(data.values(), to))
                }
                Arrange::F32(arrange) => {
                    let values = values(checkpoint, weight)?;
                    WeightData::filled(*elem, *len, buffer(len * elem.size())?, |to| arrange(&values, to))
                }
                Arrange::Bf16(arrange) => {
                    let data = load(checkpoint, weight, Buffer::new)?;
                    WeightData::filled(*elem, *len, buffer(len * elem.size())?, |to| arrange(data.values(), to))
                }
            },
        });
        if let Place::Own(_) = &data.place {
            weight.tensors().iter().filter_map(|(name, _)| checkpoint.get(name)).for_each(Tensor::release);
        }
        loaded().insert(key, Arc::downgrade(&data));
        Ok(data)
    }
}

/// The weight as it is wanted, in the checkpoint's own bytes or in a `buffer` of so many.
fn load(checkpoint: &Checkpoint, weight: &Weight, buffer: impl FnOnce(usize) -> Result<Buffer>) -> Result<WeightData> {
    let wanted = match weight.elem {
        Elem::Bf16 => DType::BF16,
        _ => DType::F32,
    };
    if matches!(weight.source, Source::Tensor) {
        let tensor = find(checkpoint, weight)?;
        if let Some((bytes, range)) = tensor.storage()
            && tensor.dtype() == wanted
            && (bytes.as_ptr() as usize + range.start).is_multiple_of(weight.elem.size())
        {
            let place = Place::Checkpoint(bytes, range.start);
            return Ok(WeightData { elem: weight.elem, place, len: tensor.len() });
        }
    }
    let own = |bytes: &[u8]| {
        let elem = weight.elem;
        Ok(WeightData::filled(elem, bytes.len() / elem.size(), buffer(bytes.len())?, |to| to.copy_from_slice(bytes)))
    };
    match weight.elem {
        Elem::Bf16 => own(bytemuck::cast_slice(&bf16_values(checkpoint, weight)?)),
        _ => own(bytemuck::cast_slice(&values(checkpoint, weight)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::WeightsChoice;

    #[test]
    fn weights_of_the_files_own_type_stay_in_the_mapped_file_or_are_arranged() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo/t5");
        let checkpoint = Checkpoint::open(folder.as_ref(), WeightsChoice::Model).unwrap();
        let name = "encoder.block.0.layer.0.SelfAttention.q.weight";
        let tensor = checkpoint.get(name).unwrap();
        assert_eq!(tensor.dtype(), DType::BF16);
        let weight = |elem| Weight { name: name.into(), shape: tensor.shape().to_vec(), elem, source: Source::Tensor };
        let cache = WeightCache::default();
        let mapped = cache.get(&checkpoint, &weight(Elem::Bf16), None).unwrap();
        assert!(matches!(mapped.place, Place::Checkpoint(Bytes::Mapped(_), _)));
        assert_eq!(mapped.ptr::<u16>().cast(), tensor.bytes().unwrap().as_ptr());
        let reverse = |from: &[u16], to: &mut [u16]| to.iter_mut().zip(from.iter().rev()).for_each(|(to, x)| *to = *x);
        let arrangement = Arrangement::bf16("reversed", tensor.len(), reverse);
        let reversed = cache.get(&checkpoint, &weight(Elem::Bf16), Some(&arrangement)).unwrap();
        assert!(matches!(reversed.place, Place::Own(_)));
        assert!(reversed.values::<u16>().iter().rev().eq(mapped.values::<u16>()));
        let converted = cache.get(&checkpoint, &weight(Elem::F32), None).unwrap();
        assert!(matches!(converted.place, Place::Own(_)));
        assert_eq!((mapped.len(), converted.len()), (tensor.len(), tensor.len()));
        // One copy, however many plans have it.
        assert!(Arc::ptr_eq(&converted, &cache.get(&checkpoint, &weight(Elem::F32), None).unwrap()));
    }

    #[test]
    fn small_buffers_share_a_chunk() {
        let mut chunks = Chunks::default();
        let mut buffer = |bytes| chunks.buffer(bytes).unwrap();
        let (mut first, mut second, large) = (buffer(100), buffer(3), buffer(CHUNK));
        assert!(Arc::ptr_eq(&first.pages, &second.pages) && !Arc::ptr_eq(&first.pages, &large.pages));
        first.bytes_mut().fill(7);
        assert_eq!((second.start % LINE, second.bytes_mut()), (0, &mut [0; 3][..]));
        // What does not fit in any more begins the next chunk.
        let more: Vec<Buffer> = (0..4).map(|_| buffer(CHUNK / 4)).collect();
        assert!(Arc::ptr_eq(&more[2].pages, &first.pages) && !Arc::ptr_eq(&more[3].pages, &first.pages));
        // A chunk that nobody uses is gone, with all that was written there.
        drop((first, second, more));
        let mut next = buffer(100);
        assert_eq!((next.start, next.bytes_mut()), (0, &mut [0; 100][..]));
    }

    #[test]
    fn memory_that_is_refused_is_an_error() {
        // More than any address space has.
        let bytes = isize::MAX as usize / 2;
        let Err(error) = Buffer::new(bytes) else { panic!("{bytes} bytes of memory") };
        assert!(matches!(error, Error::OutOfMemory { needed_bytes, .. } if needed_bytes >= bytes as u64), "{error}");
    }
}
