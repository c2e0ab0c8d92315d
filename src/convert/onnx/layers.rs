//! The layers of `nn` and `models` in evaluation form, as ONNX ops.

use anyhow::Result;

use super::Ops;
use super::proto::Attribute;
use crate::config::{
    Backbone, Block, MlpNorm, Output, PatchProjection, Position, ResNet, Stem, Vit,
};
use crate::convert::record::LAYER_NORM_EPS;

/// As `nn::batch_norm`'s.
const BATCH_NORM_EPS: f32 = 1e-5;

/// Normalised pictures to features.
pub fn backbone(ops: &mut Ops, pixels: &str) -> Result<String> {
    match ops.weights.config.model.backbone.clone() {
        Backbone::Vit(vit) => self::vit(ops, &vit, pixels),
        Backbone::ResNet(net) => resnet(ops, &net, pixels),
    }
}

fn vit(ops: &mut Ops, vit: &Vit, pixels: &str) -> Result<String> {
    ops.scope = "embed/".to_owned();
    let mut x = tokens(ops, vit, pixels)?;
    if vit.output == Output::Class {
        let shape = ops.op("Shape", &[&x], &[]);
        let first = ops.ints(&[0]);
        let batch = ops.op("Gather", &[&shape, &first], &[]);
        let rest = ops.ints(&[1, vit.dim as i64]);
        let shape = ops.op("Concat", &[&batch, &rest], &[Attribute::int("axis", 0)]);
        let class = ops.weight("cls_token")?;
        let class = ops.op("Expand", &[&class, &shape], &[]);
        x = ops.op("Concat", &[&class, &x], &[Attribute::int("axis", 1)]);
    }
    if vit.position != Position::None {
        let position = ops.weight("pos_embed")?;
        x = ops.op("Add", &[&x, &position], &[]);
    }
    for i in 0..vit.blocks {
        ops.scope = format!("blocks.{i}/");
        let place = |name: &str| format!("blocks.{i}.{name}");
        let y = layer_norm(ops, &place("norm1"), &x)?;
        let y = attention(ops, &place("attn"), vit, &y)?;
        x = ops.op("Add", &[&x, &y], &[]);
        let y = match vit.mlp_norm {
            MlpNorm::Layer => layer_norm(ops, &place("norm2"), &x)?,
            MlpNorm::Batch => batch_norm_of_tokens(ops, &place("norm2"), &x)?,
        };
        let y = mlp(ops, &place("mlp"), &y)?;
        x = ops.op("Add", &[&x, &y], &[]);
    }
    ops.scope = "output/".to_owned();
    let mean = |ops: &mut Ops, x: &str| {
        let attributes = [Attribute::ints("axes", &[1]), Attribute::int("keepdims", 0)];
        ops.op("ReduceMean", &[x], &attributes)
    };
    Ok(match vit.output {
        Output::Class => {
            let first = ops.index(0);
            let class = ops.op("Gather", &[&x, &first], &[Attribute::int("axis", 1)]);
            layer_norm(ops, "norm", &class)?
        }
        Output::NormPool => {
            let x = layer_norm(ops, "norm", &x)?;
            mean(ops, &x)
        }
        Output::Pool => mean(ops, &x),
    })
}

/// Pictures to patch tokens [n, tokens, dim].
fn tokens(ops: &mut Ops, vit: &Vit, pixels: &str) -> Result<String> {
    let place = "patch_embed.proj";
    let patch = vit.patch as i64;
    let maps = match vit.patch_projection {
        PatchProjection::ConvStem => {
            let mut x = pixels.to_owned();
            let mut i = 0;
            while ops.has(&format!("{place}.{}.running_mean", i + 1)) {
                x = conv(ops, &format!("{place}.{i}"), 2, 1, &x)?;
                x = batch_norm(ops, &format!("{place}.{}", i + 1), &x)?;
                x = ops.op("Relu", &[&x], &[]);
                i += 3;
            }
            conv(ops, &format!("{place}.{i}"), 1, 0, &x)?
        }
        PatchProjection::WeightNorm => {
            let v = ops.weight(&format!("{place}.weight_v"))?;
            let g = ops.weight(&format!("{place}.weight_g"))?;
            let axes = Attribute::ints("axes", &[1, 2, 3]);
            let length = ops.op("ReduceL2", &[&v], &[axes, Attribute::int("keepdims", 1)]);
            let scale = ops.op("Div", &[&g, &length], &[]);
            let weight = ops.op("Mul", &[&v, &scale], &[]);
            let bias = ops.weight(&format!("{place}.bias"))?;
            let attributes = [
                Attribute::ints("strides", &[patch; 2]),
                Attribute::ints("kernel_shape", &[patch; 2]),
            ];
            ops.op("Conv", &[pixels, &weight, &bias], &attributes)
        }
        PatchProjection::Frozen | PatchProjection::Learned | PatchProjection::BatchNorm => {
            conv(ops, place, patch, 0, pixels)?
        }
    };
    let maps = match vit.patch_projection {
        PatchProjection::BatchNorm => batch_norm(ops, "patch_embed.norm", &maps)?,
        _ => maps,
    };
    let shape = ops.ints(&[0, vit.dim as i64, -1]);
    let flat = ops.op("Reshape", &[&maps, &shape], &[]);
    Ok(transpose(ops, &flat, &[0, 2, 1]))
}

fn transpose(ops: &mut Ops, x: &str, axes: &[i64]) -> String {
    ops.op("Transpose", &[x], &[Attribute::ints("perm", axes)])
}

fn layer_norm(ops: &mut Ops, place: &str, x: &str) -> Result<String> {
    let weight = ops.weight(&format!("{place}.weight"))?;
    let bias = ops.weight(&format!("{place}.bias"))?;
    let epsilon = Attribute::float("epsilon", LAYER_NORM_EPS as f32);
    Ok(ops.op(
        "LayerNormalization",
        &[x, &weight, &bias],
        &[Attribute::int("axis", -1), epsilon],
    ))
}

fn batch_norm(ops: &mut Ops, place: &str, x: &str) -> Result<String> {
    let mut inputs = vec![x.to_owned()];
    for name in ["weight", "bias", "running_mean", "running_var"] {
        inputs.push(ops.weight(&format!("{place}.{name}"))?);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let epsilon = Attribute::float("epsilon", BATCH_NORM_EPS);
    Ok(ops.op("BatchNormalization", &inputs, &[epsilon]))
}

/// Of tokens [n, tokens, dim], whose channels come last.
fn batch_norm_of_tokens(ops: &mut Ops, place: &str, x: &str) -> Result<String> {
    let x = transpose(ops, x, &[0, 2, 1]);
    let y = batch_norm(ops, place, &x)?;
    Ok(transpose(ops, &y, &[0, 2, 1]))
}

/// `place.weight` is [out, in].
fn linear(ops: &mut Ops, place: &str, x: &str) -> Result<String> {
    let weight = ops.weight(&format!("{place}.weight"))?;
    let bias = ops.weight(&format!("{place}.bias"))?;
    let weight = transpose(ops, &weight, &[1, 0]);
    let y = ops.op("MatMul", &[x, &weight], &[]);
    Ok(ops.op("Add", &[&y, &bias], &[]))
}

fn attention(ops: &mut Ops, place: &str, vit: &Vit, x: &str) -> Result<String> {
    let (heads, width) = (vit.heads as i64, (vit.dim / vit.heads) as i64);
    let qkv = linear(ops, &format!("{place}.qkv"), x)?;
    let shape = ops.ints(&[0, 0, 3, heads, width]);
    let qkv = ops.op("Reshape", &[&qkv, &shape], &[]);
    let qkv = transpose(ops, &qkv, &[2, 0, 3, 1, 4]);
    let mut part = |i: i64| {
        let index = ops.index(i);
        ops.op("Gather", &[&qkv, &index], &[Attribute::int("axis", 0)])
    };
    let (q, k, v) = (part(0), part(1), part(2));
    let scale = ops.float((width as f64).powf(-0.5) as f32);
    let q = ops.op("Mul", &[&q, &scale], &[]);
    let k = transpose(ops, &k, &[0, 1, 3, 2]);
    let scores = ops.op("MatMul", &[&q, &k], &[]);
    let weights = ops.op("Softmax", &[&scores], &[Attribute::int("axis", -1)]);
    let y = ops.op("MatMul", &[&weights, &v], &[]);
    let y = transpose(ops, &y, &[0, 2, 1, 3]);
    let shape = ops.ints(&[0, 0, vit.dim as i64]);
    let y = ops.op("Reshape", &[&y, &shape], &[]);
    linear(ops, &format!("{place}.proj"), &y)
}

fn mlp(ops: &mut Ops, place: &str, x: &str) -> Result<String> {
    let x = linear(ops, &format!("{place}.fc1"), x)?;
    let root = ops.float(std::f32::consts::FRAC_1_SQRT_2);
    let erf = ops.op("Mul", &[&x, &root], &[]);
    let erf = ops.op("Erf", &[&erf], &[]);
    let one = ops.float(1.0);
    let erf = ops.op("Add", &[&erf, &one], &[]);
    let half = ops.float(0.5);
    let x = ops.op("Mul", &[&x, &half], &[]);
    let x = ops.op("Mul", &[&x, &erf], &[]);
    linear(ops, &format!("{place}.fc2"), &x)
}

/// With a bias where there is one.
fn conv(ops: &mut Ops, place: &str, stride: i64, padding: i64, x: &str) -> Result<String> {
    let name = format!("{place}.weight");
    let kernel = ops.dims(&name)?[3];
    let mut inputs = vec![x.to_owned(), ops.weight(&name)?];
    if ops.has(&format!("{place}.bias")) {
        inputs.push(ops.weight(&format!("{place}.bias"))?);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let attributes = [
        Attribute::ints("kernel_shape", &[kernel; 2]),
        Attribute::ints("strides", &[stride; 2]),
        Attribute::ints("pads", &[padding; 4]),
    ];
    Ok(ops.op("Conv", &inputs, &attributes))
}

fn resnet(ops: &mut Ops, net: &ResNet, pixels: &str) -> Result<String> {
    ops.scope = "stem/".to_owned();
    let (stride, padding) = match net.stem {
        Stem::Large => (2, 3),
        Stem::Small => (1, 1),
    };
    let x = conv(ops, "conv1", stride, padding, pixels)?;
    let x = batch_norm(ops, "bn1", &x)?;
    let mut x = ops.op("Relu", &[&x], &[]);
    if net.stem == Stem::Large {
        let attributes = [
            Attribute::ints("kernel_shape", &[3; 2]),
            Attribute::ints("strides", &[2; 2]),
            Attribute::ints("pads", &[1; 4]),
        ];
        x = ops.op("MaxPool", &[&x], &attributes);
    }
    for (stage, blocks) in net.stages.iter().enumerate() {
        for block in 0..*blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let place = format!("layer{}.{block}", stage + 1);
            ops.scope = format!("{place}/");
            x = residual(ops, &place, net.block, stride, &x)?;
        }
    }
    ops.scope = "output/".to_owned();
    let axes = Attribute::ints("axes", &[2, 3]);
    Ok(ops.op("ReduceMean", &[&x], &[axes, Attribute::int("keepdims", 0)]))
}

fn residual(ops: &mut Ops, place: &str, block: Block, stride: i64, x: &str) -> Result<String> {
    // The stride is in the 3x3 convolution, which is the first of a basic block.
    let strides: &[i64] = match block {
        Block::Basic => &[stride, 1],
        Block::Bottleneck => &[1, stride, 1],
    };
    let mut y = x.to_owned();
    for (i, stride) in strides.iter().enumerate() {
        if i > 0 {
            y = ops.op("Relu", &[&y], &[]);
        }
        let conv_place = format!("{place}.conv{}", i + 1);
        let kernel = ops.dims(&format!("{conv_place}.weight"))?[3];
        y = conv(ops, &conv_place, *stride, kernel / 2, &y)?;
        y = batch_norm(ops, &format!("{place}.bn{}", i + 1), &y)?;
    }
    let mut shortcut = x.to_owned();
    let down = format!("{place}.downsample");
    if ops.has(&format!("{down}.0.weight")) {
        shortcut = conv(ops, &format!("{down}.0"), stride, 0, &shortcut)?;
        shortcut = batch_norm(ops, &format!("{down}.1"), &shortcut)?;
    }
    let y = ops.op("Add", &[&y, &shortcut], &[]);
    Ok(ops.op("Relu", &[&y], &[]))
}
