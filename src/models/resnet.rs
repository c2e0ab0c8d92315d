//! Residual networks (He et al. 2016) as torchvision has them: the stride of a
//! bottleneck is in its 3x3 convolution, and the last BN of each block starts
//! with gain 0, so that the block starts as the identity (Goyal et al. 2017).

use super::Trunk;
use super::body::part;
use crate::config::{Block, ResNet, Stem};
use crate::graph::{Result, Value};
use crate::nn::{
    Init, Site, Spec, batch_norm_of_views, batch_norm_specs, conv, conv_specs, max_pool, mean_pool,
    relu, under,
};

/// A convolution, and the BN after it.
#[derive(Clone, Copy)]
struct Conv {
    kernel: usize,
    inputs: usize,
    outputs: usize,
    stride: usize,
}

impl Conv {
    fn specs(self) -> Vec<Spec> {
        let init = Init::he_fan_out(self.outputs * self.kernel.pow(2));
        conv_specs(self.inputs, self.outputs, self.kernel, init)
    }

    /// Through convolution and BN, whose sites are given.
    fn apply(self, [filter, norm]: [&Site; 2], views: usize, x: Value) -> Result<Value> {
        let x = conv(filter, x, self.stride)?;
        batch_norm_of_views(norm, x, views)
    }
}

/// A residual block.
struct Residual {
    /// `layer2.0`
    name: String,
    convs: Vec<Conv>,
    /// The 1x1 convolution of the shortcut, where it cannot be the identity.
    shortcut: Option<Conv>,
}

impl Residual {
    fn new(name: String, block: Block, inputs: usize, inner: usize, stride: usize) -> Self {
        let conv = |kernel, inputs, outputs, stride| Conv {
            kernel,
            inputs,
            outputs,
            stride,
        };
        let outputs = inner * block.expansion();
        let convs = match block {
            Block::Basic => vec![conv(3, inputs, inner, stride), conv(3, inner, inner, 1)],
            Block::Bottleneck => vec![
                conv(1, inputs, inner, 1),
                conv(3, inner, inner, stride),
                conv(1, inner, outputs, 1),
            ],
        };
        let changes = stride != 1 || inputs != outputs;
        Self {
            name,
            convs,
            shortcut: changes.then(|| conv(1, inputs, outputs, stride)),
        }
    }

    fn specs(&self) -> Vec<Spec> {
        let mut specs = Vec::new();
        for (i, conv) in self.convs.iter().enumerate() {
            let mut norm = batch_norm_specs(conv.outputs, true);
            if i + 1 == self.convs.len() {
                norm[0].init = Init::Zeros;
            }
            specs.extend(under(&format!("conv{}", i + 1), conv.specs()));
            specs.extend(under(&format!("bn{}", i + 1), norm));
        }
        if let Some(conv) = self.shortcut {
            specs.extend(under("downsample.0", conv.specs()));
            let norm = batch_norm_specs(conv.outputs, true);
            specs.extend(under("downsample.1", norm));
        }
        specs
    }

    fn apply(&self, site: &Site, views: usize, x: Value) -> Result<Value> {
        let mut y = x;
        for (i, conv) in self.convs.iter().enumerate() {
            if i > 0 {
                y = relu(site, y)?;
            }
            let [filter, norm] = ["conv", "bn"].map(|name| site.at(&format!("{name}{}", i + 1)));
            y = conv.apply([&filter, &norm], views, y)?;
        }
        let _scope = site.b.scope("shortcut");
        let x = match self.shortcut {
            None => x,
            Some(conv) => {
                let [filter, norm] = ["downsample.0", "downsample.1"].map(|name| site.at(name));
                conv.apply([&filter, &norm], views, x)?
            }
        };
        relu(site, site.b.add(y, x)?)
    }
}

fn stem(net: &ResNet) -> Conv {
    let (kernel, stride) = match net.stem {
        Stem::Large => (7, 2),
        Stem::Small => (3, 1),
    };
    Conv {
        kernel,
        inputs: 3,
        outputs: net.width,
        stride,
    }
}

/// All residual blocks, one after the other.
fn residuals(net: &ResNet) -> Vec<Residual> {
    let mut found = Vec::new();
    let mut inputs = net.width;
    for (i, blocks) in net.stages.iter().enumerate() {
        for j in 0..*blocks {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            let name = format!("layer{}.{j}", i + 1);
            found.push(Residual::new(name, net.block, inputs, net.inner(i), stride));
            inputs = net.inner(i) * net.block.expansion();
        }
    }
    found
}

/// The variables under torchvision's names, such as `layer1.0.conv1.weight`.
pub fn specs(net: &ResNet) -> Vec<Spec> {
    let mut specs: Vec<Spec> = under("conv1", stem(net).specs()).collect();
    specs.extend(under("bn1", batch_norm_specs(net.width, true)));
    for residual in residuals(net) {
        specs.extend(under(&residual.name, residual.specs()));
    }
    specs
}

/// Normalised pictures [B, 3, S, S] to the mean over all places of the last
/// block's maps, [B, channels], in the compute type.
pub fn resnet(site: &Site, net: &ResNet, trunk: Trunk, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let x = b.transpose(b.convert(x, site.compute)?, &[0, 2, 3, 1])?;
    let mut x = {
        let _scope = b.scope("stem");
        let x = stem(net).apply([&site.at("conv1"), &site.at("bn1")], trunk.views, x)?;
        let x = relu(site, x)?;
        match net.stem {
            Stem::Large => max_pool(site, x)?,
            Stem::Small => x,
        }
    };
    for residual in residuals(net) {
        let _scope = b.scope(residual.name.as_str());
        let place = site.at(&residual.name);
        x = part(
            &place,
            &residual.specs(),
            trunk.recomputes(),
            x,
            |site, x| residual.apply(site, trunk.views, x),
        )?;
    }
    mean_pool(site, x)
}
