//! Convolutions and pooling of feature maps [B, H, W, channels].

use super::{Init, Site, Spec};
use crate::graph::ops::{Comparison, ConvDims, Convolution};
use crate::graph::{DType, Result, Value};

/// PyTorch's layout: `weight` [outputs, inputs, kernel, kernel], no bias.
pub fn conv_specs(inputs: usize, outputs: usize, kernel: usize, init: Init) -> Vec<Spec> {
    let dims = [outputs, inputs, kernel, kernel];
    vec![Spec::trained("weight", &dims, init)]
}

/// Slides the square filter over `x` [B, H, W, inputs], which is padded by half
/// of the filter: [B, H/stride, W/stride, outputs], rounded up, in the type of
/// `x`. A bias is added where the site has one.
pub fn conv(site: &Site, x: Value, stride: usize) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let weight = b.convert(site.get("weight")?, x.dtype())?;
    let half = (weight.dim(2) / 2) as i64;
    let op = Convolution {
        strides: vec![stride; 2],
        padding: vec![(half, half); 2],
        ..Convolution::new(ConvDims {
            filter: ConvDims::nchw().filter,
            ..ConvDims::nhwc()
        })
    };
    let y = b.convolution(op, x, weight)?;
    match site.find("bias") {
        Some(bias) => b.add(y, b.convert(bias, x.dtype())?),
        None => Ok(y),
    }
}

/// The largest of each 3x3 window of `x` [B, H, W, C], at stride 2.
pub fn max_pool(site: &Site, x: Value) -> Result<Value> {
    let (window, strides) = ([1, 3, 3, 1], [1, 2, 2, 1]);
    let padding = [(0, 0), (1, 1), (1, 1), (0, 0)];
    site.b.max_pool(x, &window, &strides, &padding)
}

/// The mean over all places of `x` [B, .., C]: [B, C], in the type of `x`.
pub fn mean_pool(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let places: Vec<usize> = (1..x.rank().saturating_sub(1)).collect();
    let mean = b.mean(b.convert(x, DType::F32)?, &places)?;
    b.convert(mean, x.dtype())
}

/// max(x, 0), whose derivative at 0 is 0, as PyTorch has it. It matters: what a
/// residual block adds is exactly 0 at the start, and what it adds to often is.
pub fn relu(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let zero = b.full_like(x, 0.0)?;
    // Not "0 unless x > 0", which would hide what is not a number.
    b.select(b.compare(Comparison::Le, x, zero)?, zero, x)
}
