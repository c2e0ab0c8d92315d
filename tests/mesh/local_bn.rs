//! What the loss would be if BN had statistics of each device's own rows: far
//! from what it is on any mesh. So the equality of meshes says something.

use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;
use xla_moco::graph::{Builder, DType, Graph, Shape, Value};
use xla_moco::methods::{self, info_nce};
use xla_moco::models::head::head;
use xla_moco::models::{Trunk, backbone};
use xla_moco::nn::{Mode, Site, Variables};

use crate::equality::{on_one_device, relative, train};
use crate::run::{Runner, batch, config, f32s, state, step};

/// The loss of the first step, written from the paper's Algorithm 1, with BN
/// statistics of each of `groups` runs of rows by itself. A head takes each
/// slice of its input's middle axis for a view with statistics of its own, so
/// groups are made by moving rows there.
fn loss(config: &RunConfig, groups: usize) -> Graph {
    let b = Builder::new();
    let variables = Variables::new(methods::specs(config).into_iter().map(|spec| {
        let value = b.input(&spec.name, Shape::new(DType::F32, &spec.dims));
        (spec.name, value)
    }));
    let site = Site::new(&b, &variables, DType::F32, Mode::Train);
    let rows = config.batch;
    let views = ["view1", "view2"].map(|name| {
        let shape = Shape::new(DType::F32, &[rows, 3, 16, 16]);
        b.input(name, shape)
    });
    let method = &config.method;
    let grouped = |site: &Site, layers, x: Value| {
        let dim = x.dim(1);
        let x = b.reshape(x, &[groups, rows / groups, dim]).unwrap();
        let x = b.transpose(x, &[1, 0, 2]).unwrap();
        let y = head(site, layers, x).unwrap();
        let y = b.transpose(y, &[1, 0, 2]).unwrap();
        b.reshape(y, &[rows, y.dim(2)]).unwrap()
    };
    let encode = |name: &str, view: Value| {
        let x = backbone(&site.at(name), &config.model, Trunk::PLAIN, view).unwrap();
        grouped(&site.at(name).at("head"), &method.projector, x)
    };
    let q = views.map(|view| {
        let z = encode("base_encoder", view);
        grouped(&site.at("predictor"), &method.predictor, z)
    });
    // At the start the momentum encoder is a copy, which its update keeps.
    let k = views.map(|view| encode("momentum_encoder", view));
    let tau = method.temperature.unwrap();
    let ctr = |q, k| info_nce(&b, q, k, tau).unwrap();
    let sum = b.add(ctr(q[0], k[1]), ctr(q[1], k[0])).unwrap();
    b.output("loss", b.scale(sum, 2.0 * tau).unwrap());
    b.finish().unwrap()
}

fn first_loss(config: &RunConfig, groups: usize) -> f64 {
    let mut arrays = state(&step(config, Lowering::Unrolled));
    arrays.extend(batch(0));
    let results = Runner::new(loss(config, groups), 1).call(&arrays);
    f32s(&results["loss"].1)[0]
}

#[test]
fn statistics_of_each_device_alone_would_be_seen() {
    let config = config(1, &[]);
    let one = on_one_device().losses[0];
    let eight = train(8, false).losses[0];
    // The construction is the program's loss where there is one group.
    assert!(relative(first_loss(&config, 1), one) < 1e-5);
    let local = relative(first_loss(&config, 8), one);
    let synchronised = relative(eight, one);
    assert!(synchronised <= 1e-5, "{synchronised:e}");
    assert!(
        local >= 100.0 * synchronised.max(1e-7),
        "local {local:e}, synchronised {synchronised:e}"
    );
}
