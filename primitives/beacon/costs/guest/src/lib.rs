//! The cases, compiled to WASM: `setup(members)` once, then `run(case)`. Zero means success.
#![no_std]
#![allow(static_mut_refs)]

extern crate alloc;

use core::{
	alloc::{GlobalAlloc, Layout},
	cell::UnsafeCell,
};

#[path = "../../cases.rs"]
mod cases;

const HEAP: usize = 64 << 20;

/// Hands out memory and takes none back, except all of a case's at once: an instance is single-threaded, and what
/// `setup` made lies below the mark.
struct Bump {
	heap: UnsafeCell<[u8; HEAP]>,
	next: UnsafeCell<usize>,
	mark: UnsafeCell<usize>,
}

unsafe impl Sync for Bump {}

unsafe impl GlobalAlloc for Bump {
	unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
		let next = unsafe { &mut *self.next.get() };
		let start = next.next_multiple_of(layout.align());
		if start + layout.size() > HEAP {
			return core::ptr::null_mut();
		}
		*next = start + layout.size();
		unsafe { (self.heap.get() as *mut u8).add(start) }
	}

	unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP_OF_CASES: Bump = Bump { heap: UnsafeCell::new([0; HEAP]), next: UnsafeCell::new(0), mark: UnsafeCell::new(0) };

static mut CASES: Option<cases::Cases> = None;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
	core::arch::wasm32::unreachable()
}

#[no_mangle]
extern "C" fn setup(members: u32) -> u32 {
	let Ok(cases) = cases::Cases::new(members) else { return 1 };
	unsafe {
		CASES = Some(cases);
		*HEAP_OF_CASES.mark.get() = *HEAP_OF_CASES.next.get();
	}
	0
}

#[no_mangle]
extern "C" fn run(case: u32) -> u32 {
	let Some(cases) = (unsafe { CASES.as_ref() }) else { return 2 };
	unsafe { *HEAP_OF_CASES.next.get() = *HEAP_OF_CASES.mark.get() };
	match cases.run(case) {
		Ok(byte) => {
			core::hint::black_box(byte);
			0
		}
		Err(_) => 1,
	}
}
