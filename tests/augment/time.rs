//! How long the augmentation takes.

use std::time::Instant;

use xla_moco::config::Augment;
use xla_moco::data::augment::{COLUMNS, draw};
use xla_moco::graph::{Builder, DType, Shape, emit};
use xla_moco::pjrt::Arg;
use xla_moco::programs::augment::augment;

use crate::support;

/// Prints how long both views take.
#[test]
#[ignore = "a measurement"]
fn time() {
    let without_blur = Augment {
        blur_p: [0.0; 2],
        ..Augment::default()
    };
    for (n, side, config) in [
        (128, 32, &without_blur),
        (64, 64, &Augment::default()),
        (32, 224, &without_blur),
        (32, 224, &Augment::default()),
    ] {
        let b = Builder::new();
        let mut bytes = Vec::new();
        for view in 0..2 {
            let crops = Shape::new(DType::U8, &[n, side, side, 3]);
            let rows = Shape::new(DType::F32, &[n, COLUMNS]);
            let inputs = (b.input("crops", crops), b.input("rows", rows));
            let y = augment(&b, inputs.0, inputs.1, config, view).unwrap();
            b.output("y", y);
            let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
            bytes.push((crops, (0..crops.len()).map(noise).collect()));
            let drawn = (0..n as u32).flat_map(|i| draw(config, 1, 0, i, view, (9, 9)).1);
            bytes.push((rows, support::f32_bytes(&drawn.collect::<Vec<_>>())));
        }
        let graph = b.finish().unwrap();
        support::on_each_cpu_plugin(1, |name, client| {
            let device = &client.devices()[0];
            let upload = |(shape, bytes): &(Shape, Vec<u8>)| {
                client
                    .buffer_from_host(bytes, shape.dtype, shape.dims(), device)
                    .unwrap()
            };
            let inputs: Vec<_> = bytes.iter().map(upload).collect();
            let program = support::compile(client, &emit::stablehlo("augment", &graph, None));
            let once = |_| {
                let start = Instant::now();
                let arguments = inputs.iter().map(Arg::Borrow).collect();
                let run = program.execute(vec![arguments]).unwrap();
                run.done.iter().for_each(|done| done.wait().unwrap());
                start.elapsed().as_secs_f64() * 1e3
            };
            let mut times: Vec<f64> = (0..15).map(once).collect();
            times.sort_by(f64::total_cmp);
            let blur = if config.blur_p[0] > 0.0 {
                ""
            } else {
                ", no blur"
            };
            println!(
                "{name}: {n} x {side} px{blur}: median {:.1} ms, least {:.1}",
                times[7], times[0]
            );
        });
    }
}
