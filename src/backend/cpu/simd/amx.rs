//! AMX: tiles in hardware, by inline assembly, as the intrinsics are not stable.

use std::arch::asm;
use std::sync::OnceLock;

use super::tiles::{Shape, TILES, Tiles};

/// Whether processor, hypervisor and system let this process use tiles and their products of bf16.
pub fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_instructions() && permitted())
}

fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // Leaf 7, edx: AMX-BF16 and AMX-TILE.
    const NEEDED: u32 = 1 << 22 | 1 << 24;
    #[allow(unused_unsafe)] // safe from Rust 1.94 on
    // SAFETY: every x86-64 processor has `cpuid`.
    unsafe {
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
    }
}

/// Linux gives a process the room that tiles take only when it asks.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call changes nothing but what threads may use; a system that does not know it says so.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The thread's own tiles. Assembly may not rely on registers that it does not name, but nothing that the compiler makes
/// ever touches these: they keep between two statements what they hold.
pub struct Amx(Shape);

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles for Amx {
    #[inline(always)]
    fn new() -> Self {
        Self(Shape::NONE)
    }

    #[inline(always)]
    unsafe fn shape(&mut self, shape: Shape) {
        if self.0 == shape {
            return;
        }
        self.0 = shape;
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for tile in 0..TILES {
            // A tile has both or neither.
            if shape.rows[tile] > 0 && shape.words[tile] > 0 {
                configuration.rows[tile] = shape.rows[tile];
                configuration.row_bytes[tile] = 4 * u16::from(shape.words[tile]);
            }
        }
        // SAFETY: the processor has tiles, says the caller.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn zero<const T: usize>(&mut self) {
        // SAFETY: as above, and so below.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, nomem, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride_bytes: usize) {
        unsafe {
            asm!("tileloadd tmm{t}, [{from} + {stride}]", t = const T, from = in(reg) from, stride = in(reg) stride_bytes,
                options(nostack, readonly, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn load_once<const T: usize>(&mut self, from: *const u32, stride_bytes: usize) {
        unsafe {
            asm!("tileloaddt1 tmm{t}, [{from} + {stride}]", t = const T, from = in(reg) from,
                stride = in(reg) stride_bytes, options(nostack, readonly, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut f32, stride_bytes: usize) {
        unsafe {
            asm!("tilestored [{to} + {stride}], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride_bytes,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        unsafe {
            asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags));
        }
    }
}

impl Drop for Amx {
    /// Threads without tiles are cheaper to switch between.
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 != Shape::NONE {
            // SAFETY: `shape` was called, so the processor has tiles.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
        }
    }
}
