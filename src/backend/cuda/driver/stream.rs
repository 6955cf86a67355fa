//! A CUDA stream: launches in order, recorded ones as a CUDA graph.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::Opened;
use crate::Result;
use crate::backend::cuda::device::{DeviceBuffer, Launch, Ptr, Recording, Stream};

/// Replays between two marks. The host stays at most two marks ahead of the device, so that progress is true
/// and cancelling is quick; a mark costs far less than the shortest replay.
const REPLAYS_PER_MARK: usize = 8;

pub(super) struct CudaStream {
    device: Arc<Opened>,
    raw: sys::CUstream,
    recordings: Vec<Recorded>,
    /// Two events that take turns behind the replays.
    marks: [sys::CUevent; 2],
    /// Marks set so far.
    marked: usize,
}

// SAFETY: streams, events and graphs are handles; the driver takes them from any thread, and `&mut self` sees
// to it that only one uses them at a time.
unsafe impl Send for CudaStream {}

/// What a recording has become.
enum Recorded {
    Graph(sys::CUgraphExec),
    /// To be launched one by one.
    Launches(Vec<Launch>),
}

impl CudaStream {
    /// A stream that runs beside all others.
    pub fn new(device: Arc<Opened>) -> Result<Self> {
        let (raw, marks) = (std::ptr::null_mut(), [std::ptr::null_mut(); 2]);
        // Dropped where not all of it can be made.
        let mut stream = Self { device: device.clone(), raw, recordings: Vec::new(), marks, marked: 0 };
        let context = &device.context;
        context.enter(|| {
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            // SAFETY: the driver writes the handle.
            context.check(unsafe { sys::cuStreamCreate(&mut stream.raw, flags) }, || "making a stream".into())?;
            // The host sleeps while it waits for a mark: the card is busy, there is no hurry.
            let flags =
                sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32 | sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32;
            for mark in &mut stream.marks {
                // SAFETY: the driver writes the handle.
                context.check(unsafe { sys::cuEventCreate(mark, flags) }, || "making an event".into())?;
            }
            Ok(())
        })?;
        Ok(stream)
    }

    fn check(&self, result: CUresult, doing: &str) -> Result<()> {
        self.device.context.check(result, || doing.into())
    }

    /// Enqueues launches. In the context.
    ///
    /// # Safety
    /// As for [`Stream::launch`].
    unsafe fn enqueue(&self, run: &[Launch]) -> Result<()> {
        let overlapped = [false].into_iter().chain(std::iter::repeat(self.device.programmatic));
        // SAFETY: the caller's word.
        run.iter().zip(overlapped).try_for_each(|(launch, overlaps)| unsafe { self.enqueue_one(launch, overlaps) })
    }

    /// Enqueues a launch, which may begin before the one ahead of it has ended where it `overlaps`. In the context.
    ///
    /// # Safety
    /// As for [`Stream::launch`].
    unsafe fn enqueue_one(&self, launch: &Launch, overlaps: bool) -> Result<()> {
        let context = &self.device.context;
        let function = self.device.functions.get(context, launch)?;
        // The words stay where they are until the call has copied them.
        let mut arguments: Vec<*mut c_void> =
            launch.words().iter().map(|word| (&raw const *word).cast_mut().cast()).collect();
        let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        let mut programmatic = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value,
        };
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block[0],
            blockDimY: launch.block[1],
            blockDimZ: launch.block[2],
            sharedMemBytes: launch.shared_bytes,
            hStream: self.raw,
            attrs: &mut programmatic,
            numAttrs: overlaps.into(),
        };
        // SAFETY: the arguments are the kernel's, by the caller's word; configuration and words outlive the call.
        let launched =
            unsafe { sys::cuLaunchKernelEx(&config, function, arguments.as_mut_ptr(), std::ptr::null_mut()) };
        context.check(launched, || format!("launching {}", launch.describe()))
    }

    /// Enqueues a launch and waits for it, to know that it was this one. In the context.
    ///
    /// # Safety
    /// As for [`Stream::launch`].
    unsafe fn launch_and_wait(&self, launch: &Launch) -> Result<()> {
        // SAFETY: the caller's word.
        unsafe { self.enqueue_one(launch, false)? };
        // SAFETY: the stream is of this context.
        let done = unsafe { sys::cuStreamSynchronize(self.raw) };
        self.device.context.check(done, || format!("running {}", launch.describe()))
    }

    /// Waits for everything on the stream. In the context.
    fn wait(&self) -> Result<()> {
        // SAFETY: the stream is of this context.
        self.check(unsafe { sys::cuStreamSynchronize(self.raw) }, "waiting for the device")
    }

    /// Copies a buffer to another one of its length some times, and waits.
    pub fn copy(&self, from: &DeviceBuffer, to: &DeviceBuffer, times: usize) -> Result<()> {
        assert_eq!(from.len_bytes(), to.len_bytes(), "buffers of one length");
        self.device.context.enter(|| {
            for _ in 0..times {
                // SAFETY: both buffers are that long, and live until the copies are waited for.
                let copied = unsafe { sys::cuMemcpyDtoDAsync_v2(to.ptr().0, from.ptr().0, from.len_bytes(), self.raw) };
                self.check(copied, "copying on the device")?;
            }
            self.wait()
        })
    }

    /// Captures launches as a graph, ready on the device. In the context.
    ///
    /// # Safety
    /// As for [`Stream::record`].
    unsafe fn capture(&self, launches: &[Launch]) -> Result<sys::CUgraphExec> {
        // Modules cannot be loaded while a capture is under way.
        for launch in launches {
            self.device.functions.get(&self.device.context, launch)?;
        }
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is of this context.
        self.check(unsafe { sys::cuStreamBeginCapture_v2(self.raw, mode) }, "beginning a capture")?;
        // SAFETY: the caller's word.
        let enqueued = unsafe { self.enqueue(launches) };
        let mut graph = std::ptr::null_mut();
        // SAFETY: ends what was begun above, whether all went well or not.
        let ended = unsafe { sys::cuStreamEndCapture(self.raw, &mut graph) };
        let captured = enqueued.and_then(|()| self.check(ended, "ending a capture"));
        let mut exec = std::ptr::null_mut();
        let made = captured.and_then(|()| {
            // SAFETY: the graph was captured above.
            let made = unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0) };
            self.check(made, &format!("making a graph of {} launches", launches.len()))
        });
        if !graph.is_null() {
            // SAFETY: what was made of it needs it no more.
            unsafe { sys::cuGraphDestroy(graph) };
        }
        made?;
        // SAFETY: graph and stream are of this context.
        let uploaded = self.check(unsafe { sys::cuGraphUpload(exec, self.raw) }, "uploading a graph");
        if uploaded.is_err() {
            // SAFETY: nobody else knows it.
            unsafe { sys::cuGraphExecDestroy(exec) };
        }
        uploaded.map(|()| exec)
    }

    /// Launches a graph `times` times, no further ahead of the device than two marks. In the context.
    ///
    /// # Safety
    /// As for [`Stream::replay`].
    unsafe fn replay_graph(&mut self, graph: sys::CUgraphExec, times: usize) -> Result<()> {
        for first in (0..times).step_by(REPLAYS_PER_MARK) {
            let mark = self.marks[self.marked % 2];
            // SAFETY: the event is of this context; one that was never recorded has happened.
            self.check(unsafe { sys::cuEventSynchronize(mark) }, "waiting for the device")?;
            for _ in first..times.min(first + REPLAYS_PER_MARK) {
                // SAFETY: the caller's word for the launches in it.
                self.check(unsafe { sys::cuGraphLaunch(graph, self.raw) }, "launching a graph")?;
            }
            // SAFETY: event and stream are of this context.
            self.check(unsafe { sys::cuEventRecord(mark, self.raw) }, "marking a replay")?;
            self.marked += 1;
        }
        Ok(())
    }
}

impl Stream for CudaStream {
    unsafe fn launch(&mut self, run: &[Launch]) -> Result<()> {
        self.device.context.enter(|| match self.device.eager {
            // SAFETY: the caller's word.
            true => run.iter().try_for_each(|launch| unsafe { self.launch_and_wait(launch) }),
            // SAFETY: the caller's word.
            false => unsafe { self.enqueue(run) },
        })
    }

    unsafe fn record(&mut self, launches: &[Launch]) -> Result<Recording> {
        let recorded = match self.device.eager {
            true => Recorded::Launches(launches.to_vec()),
            // SAFETY: the caller's word.
            false => Recorded::Graph(self.device.context.enter(|| unsafe { self.capture(launches) })?),
        };
        self.recordings.push(recorded);
        Ok(Recording(self.recordings.len() - 1))
    }

    unsafe fn replay(&mut self, recording: Recording, times: usize) -> Result<()> {
        let device = self.device.clone();
        device.context.enter(|| match &self.recordings[recording.0] {
            Recorded::Graph(graph) => {
                let graph = *graph;
                // SAFETY: the caller's word.
                unsafe { self.replay_graph(graph, times) }
            }
            Recorded::Launches(launches) => {
                let mut all = (0..times).flat_map(|_| launches);
                // SAFETY: the caller's word.
                all.try_for_each(|launch| unsafe { self.launch_and_wait(launch) })
            }
        })
    }

    unsafe fn write(&mut self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.device.context.enter(|| {
            // SAFETY: the caller's word for the device's side; the bytes are live until the copy is waited for.
            let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(to.0, bytes.as_ptr().cast(), bytes.len(), self.raw) };
            self.check(copied, "copying to the device")?;
            // The copy may read the bytes after the call where the card reads the host's pages itself.
            self.wait()
        })
    }

    unsafe fn read(&mut self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        self.device.context.enter(|| {
            // SAFETY: the caller's word for the device's side; the bytes are live until the copy is waited for.
            let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from.0, bytes.len(), self.raw) };
            self.check(copied, "copying from the device")?;
            self.wait()
        })
    }

    fn synchronize(&mut self) -> Result<()> {
        self.device.context.enter(|| self.wait())
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        // Without the context all of this went with it; and a fault was told to whoever waited.
        let _ = self.device.context.enter(|| {
            // SAFETY: all are of this context, and nothing runs on the stream once it is waited for.
            unsafe {
                sys::cuStreamSynchronize(self.raw);
                for recorded in &self.recordings {
                    if let Recorded::Graph(graph) = recorded {
                        sys::cuGraphExecDestroy(*graph);
                    }
                }
                for mark in self.marks.into_iter().filter(|mark| !mark.is_null()) {
                    sys::cuEventDestroy_v2(mark);
                }
                if !self.raw.is_null() {
                    sys::cuStreamDestroy_v2(self.raw);
                }
            }
            Ok(())
        });
    }
}
