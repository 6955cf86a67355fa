//! Kernels without a mistake give the right result in both builds, in every order, and none is flagged.

mod common;

use common::{Buffer, bf16, builds, product, x};
use smalti_simt::{Build, Copies, Order, Simt};

/// All that a launch may depend on and a kernel may not.
const SETTINGS: [(Order, Copies); 6] = [
    (Order::Forward, Copies::Lazy),
    (Order::Forward, Copies::Eager),
    (Order::Reverse, Copies::Lazy),
    (Order::Reverse, Copies::Eager),
    (Order::Random(1), Copies::Lazy),
    (Order::Random(2), Copies::Eager),
];

/// Runs `test` in each build under all settings.
fn everywhere(test: impl Fn(&Simt)) {
    for (_, simt) in builds() {
        for (order, copies) in SETTINGS {
            simt.configure(order, copies);
            test(&simt);
        }
    }
}

#[test]
fn built_in_indices_count_x_first() {
    everywhere(|simt| {
        let out = Buffer::<u32>::new(simt, 2 * 3 * 4 * 5 * 3);
        launch!(simt, "test_indices", [4, 3, 2], [5, 3, 1], 0, false, out.ptr()).unwrap();
        let out = out.get();
        assert_eq!(out[0], 0);
        assert_eq!(out[5 + 2], 12, "thread (2, 1, 0)");
        let block = 1 + 4 * (2 + 3); // (1, 2, 1)
        assert_eq!(out[block * 15 + 14], 24 + 121_000);
    });
}

#[test]
fn warp_operations() {
    everywhere(|simt| {
        for live in [20u32, 32] {
            let out = Buffer::of(simt, &[u32::MAX; 7 * 32]);
            launch!(simt, "test_warp", x(1), x(32), 0, false, out.ptr(), live as i32).unwrap();
            let out = out.get();
            for lane in 0..live {
                let result = |row: u32| out[(row * 32 + lane) as usize];
                assert_eq!(result(0), (0..live).filter(|l| l % 3 == 0).map(|l| 1 << l).sum::<u32>());
                assert_eq!(result(1), 1, "one is lane 7, not all are below 16");
                let source = lane / 8 * 8 + 2;
                if source < live {
                    assert_eq!(result(2), source * 10);
                }
                assert_eq!(result(3), if lane < 3 { lane } else { lane - 3 });
                assert_eq!(result(4), (0..live).map(|l| l * 7 % 13).max().unwrap());
                assert_eq!(result(5), if lane < 4 { lane ^ 1 } else { 0 });
                assert_eq!(result(6), (0..live).sum::<u32>());
            }
            assert!(out[live as usize..32].iter().all(|&word| word == u32::MAX), "ended lanes write nothing");
        }
    });
}

#[test]
fn block_reductions_have_one_order() {
    let values: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) * 1.37).collect();
    let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
    let first = std::cell::OnceCell::new();
    everywhere(|simt| {
        let (sums, largest) = (Buffer::<f32>::new(simt, 256), Buffer::<f32>::new(simt, 256));
        let input = Buffer::of(simt, &values);
        launch!(simt, "test_reductions", x(1), x(256), 0, false, sums.ptr(), largest.ptr(), input.ptr()).unwrap();
        let (sums, largest) = (sums.get(), largest.get());
        // 255 additions of values up to 70, each within half an ulp of a partial sum below 256 * 70.
        assert!((f64::from(sums[0]) - exact).abs() < 255.0 * 17920.0 * f64::from(f32::EPSILON) / 2.0);
        assert!(sums.iter().all(|sum| sum.to_bits() == sums[0].to_bits()));
        assert_eq!(largest, vec![values.iter().copied().fold(f32::MIN, f32::max); 256]);
        assert_eq!(first.get_or_init(|| sums[0]).to_bits(), sums[0].to_bits());
    });
}

#[test]
fn barriers_that_count() {
    everywhere(|simt| {
        let (out, input) = (Buffer::<i32>::new(simt, 96), Buffer::of(simt, &Vec::from_iter(0..96)));
        launch!(simt, "test_count_odd", x(1), x(96), 0, false, out.ptr(), input.ptr()).unwrap();
        assert_eq!(out.get(), [48; 96]);
    });
}

#[test]
fn the_last_block_sees_what_the_others_published() {
    let values: Vec<f32> = (0..8 * 64).map(|i| (i % 7) as f32).collect();
    everywhere(|simt| {
        let (total, parts) = (Buffer::<f32>::new(simt, 1), Buffer::<f32>::new(simt, 8));
        let (ticket, input) = (Buffer::of(simt, &[0u32]), Buffer::of(simt, &values));
        let args = (total.ptr(), parts.ptr(), ticket.ptr(), input.ptr());
        launch!(simt, "test_last_block", x(8), x(64), 0, false, args.0, args.1, args.2, args.3).unwrap();
        assert_eq!(total.get(), [values.iter().sum::<f32>()], "integers: no rounding in any order");
    });
}

#[test]
fn blocks_of_a_cooperative_launch_run_beside_one_another() {
    everywhere(|simt| {
        let (out, arrived) = (Buffer::<u32>::new(simt, 5 * 40), Buffer::of(simt, &[0u32]));
        launch!(simt, "test_spin", x(5), x(40), 0, true, out.ptr(), arrived.ptr()).unwrap();
        assert_eq!(out.get(), Vec::from_iter((0..5).flat_map(|block| [block; 40])));

        let values: Vec<f32> = (0..1024).map(|i| (i % 3) as f32).collect();
        let (out, sum) = (Buffer::<f32>::new(simt, 1024), Buffer::of(simt, &[0f32]));
        let input = Buffer::of(simt, &values);
        launch!(simt, "test_normalized", x(4), x(64), 0, true, out.ptr(), sum.ptr(), input.ptr()).unwrap();
        let total: f32 = values.iter().sum();
        assert_eq!(out.get(), Vec::from_iter(values.iter().map(|value| value / total)));
    });
}

#[test]
fn tensor_cores_multiply_and_copies_arrive() {
    const K: usize = 80;
    // Small integers: exact in bf16, and their sums in f32, in any order.
    let a: Vec<u16> = (0..16 * K).map(|i| bf16((i * 7 % 15) as f32 - 7.0)).collect();
    let b: Vec<u16> = (0..8 * K).map(|i| bf16((i * 5 % 11) as f32 - 5.0)).collect();
    let expected = product(&a, &b, K);
    everywhere(|simt| {
        let out = Buffer::<f32>::new(simt, 16 * 8);
        let (a, b) = (Buffer::of(simt, &a), Buffer::of(simt, &b));
        launch!(simt, "test_product", x(1), x(64), 2 * 768, false, out.ptr(), a.ptr(), b.ptr(), K as i32).unwrap();
        assert_eq!(out.get(), expected);
    });
}

#[test]
fn launches_that_the_driver_would_refuse() {
    for (_, simt) in builds() {
        let out = Buffer::<u32>::new(&simt, 64);
        let refused = |kernel: &str, grid, block, shared| {
            launch!(simt, kernel, grid, block, shared, false, out.ptr(), 0u32).unwrap_err()
        };
        assert_eq!(refused("test_cuont", x(1), x(1), 0), "there is no kernel test_cuont");
        assert_eq!(refused("test_warp_", x(1), x(1), 0), "there is no kernel test_warp_");
        assert_eq!(refused("test_indices", x(1), x(1), 0), "test_indices takes 1 arguments, and was given 2");
        assert_eq!(refused("test_count", x(0), x(1), 0), "launch of test_count: a dimension is 0");
        assert_eq!(refused("test_count", [1, 65536, 1], x(1), 0), "launch of test_count: the grid is too large");
        assert_eq!(refused("test_count", x(1), [32, 33, 1], 0), "launch of test_count: the block is too large");
        assert_eq!(refused("test_count", x(1), x(1), 232_449), "launch of test_count: over 227 KiB of shared memory");
        assert_eq!(simt.kernel_args("test_count"), Some(vec![8, 4]));
        assert_eq!(simt.kernel_args("test_cuont"), None);
        assert!(simt.kernels().iter().all(|name| !name.starts_with("test_")));
    }
}

#[test]
fn handles_keep_their_own_settings() {
    let handles: Vec<_> = builds().into_iter().filter(|(build, _)| *build == Build::Plain).collect();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let handles = &handles;
            scope.spawn(move || {
                for (build, _) in handles {
                    let simt = Simt::open(*build).unwrap();
                    simt.configure(Order::Random(seed), Copies::Eager);
                    for _ in 0..50 {
                        let out = Buffer::<u32>::new(&simt, 64 * 33);
                        launch!(simt, "test_count", x(33), x(64), 0, false, out.ptr(), seed as u32).unwrap();
                        assert!(out.get().iter().enumerate().all(|(i, &word)| word == i as u32 + seed as u32));
                    }
                }
            });
        }
    });
}
