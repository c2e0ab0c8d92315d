//! How long it takes to build the train step of ViT-B/16 (batch 4096, 224 px,
//! 300 epochs' recipe) on ImageNet, as `train` runs it: augmentation, monitor,
//! graph, gradients and StableHLO text. The aim is under 0.1 s in all.
//!
//!     cargo bench --bench graph_build

use std::path::Path;
use std::time::{Duration, Instant};

use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;
use xla_moco::programs::train_step::{self, TrainStep, TrainingSet};

const ROUNDS: usize = 15;
fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("configs/paper/moco_v3_vit_b16_300ep.json");
    let config = RunConfig::load(&file, &[]).expect("a configuration of this package");
    println!("lowering      build      text      both   ops   text");
    for (name, lowering) in [
        ("unrolled", Lowering::Unrolled),
        ("remat", Lowering::Remat),
        ("scan", Lowering::Scan),
    ] {
        let spec = TrainStep {
            lowering,
            ..TrainStep::of_run(&config, TrainingSet::IMAGENET)
        };
        let (mut builds, mut texts, mut sizes) = (Vec::new(), Vec::new(), (0, 0));
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let program = train_step::build(&spec).expect("the program builds");
            let built = start.elapsed();
            let text = program.text();
            builds.push(built);
            texts.push(start.elapsed() - built);
            sizes = (program.graph.nodes().len(), text.len());
        }
        let (build, text) = (median(builds), median(texts));
        println!(
            "{name:10} {} {} {} {:5} {:3.1} MB",
            milliseconds(build),
            milliseconds(text),
            milliseconds(build + text),
            sizes.0,
            sizes.1 as f64 / 1e6
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> String {
    format!("{:6.1} ms", time.as_secs_f64() * 1e3)
}
